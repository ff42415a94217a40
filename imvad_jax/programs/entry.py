"""Where the programs begin: signals are taken before anything that takes time is imported."""

import importlib

from imvad_jax.programs import stopping


def start(name: str) -> None:
    """Runs the program of this name, a module of this package, from the file that a user started."""
    stopping.listen()
    program = importlib.import_module("imvad_jax.programs.program")
    program.start(importlib.import_module(f"imvad_jax.programs.{name}"))
