"""Starts the program of this name, which is described in imvad_jax/programs/predict.py."""

from imvad_jax.programs import predict, program

if __name__ == "__main__":
    program.start(predict)
