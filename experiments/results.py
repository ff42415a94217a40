"""Starts the program of this name, which is described in imvad_jax/programs/results.py."""

from imvad_jax.programs import program, results

if __name__ == "__main__":
    program.start(results)
