"""Starts the program of this name, which is described in imvad_jax/programs/fidelity.py."""

from imvad_jax.programs import fidelity, program

if __name__ == "__main__":
    program.start(fidelity)
