"""Starts the program of this name, which is described in imvad_jax/programs/document.py."""

from imvad_jax.programs import document, program

if __name__ == "__main__":
    program.start(document)
