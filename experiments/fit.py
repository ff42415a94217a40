"""Starts the program of this name, which is described in imvad_jax/programs/fit.py."""

from imvad_jax.programs import entry

if __name__ == "__main__":
    entry.start("fit")
