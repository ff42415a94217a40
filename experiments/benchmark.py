"""Starts the program of this name, which is described in imvad_jax/programs/benchmark.py."""

from imvad_jax.programs import benchmark, program

if __name__ == "__main__":
    program.start(benchmark)
