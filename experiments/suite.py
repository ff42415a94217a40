"""Starts the program of this name, which is described in imvad_jax/programs/suite.py."""

from imvad_jax.programs import program, suite

if __name__ == "__main__":
    program.start(suite)
