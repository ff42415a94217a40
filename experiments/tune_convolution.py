"""Starts the program of this name, which is described in imvad_jax/programs/tune_convolution.py."""

from imvad_jax.programs import program, tune_convolution

if __name__ == "__main__":
    program.start(tune_convolution)
