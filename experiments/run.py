"""Starts the program of this name, which is described in imvad_jax/programs/run.py."""

from imvad_jax.programs import program, run

if __name__ == "__main__":
    program.start(run)
