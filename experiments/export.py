"""Starts the program of this name, which is described in imvad_jax/programs/export.py."""

from imvad_jax.programs import export, program

if __name__ == "__main__":
    program.start(export)
