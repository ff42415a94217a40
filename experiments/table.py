"""Starts the program of this name, which is described in imvad_jax/programs/table.py."""

from imvad_jax.programs import program, table

if __name__ == "__main__":
    program.start(table)
