"""Starts the program of this name, which is described in imvad_jax/programs/audit.py."""

from imvad_jax.programs import entry

if __name__ == "__main__":
    entry.start("audit")
