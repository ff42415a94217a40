"""Starts the program of this name, which is described in imvad_jax/programs/make_demo_data.py."""

from imvad_jax.programs import make_demo_data, program

if __name__ == "__main__":
    program.start(make_demo_data)
