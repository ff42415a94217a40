"""Where the programs begin: signals are taken before anything that takes time is imported.

The files of `experiments` call it; programs that other programs start are named to it:
`python -m imvad_jax.programs.entry worker`.
"""

import importlib
import sys

from imvad_jax.programs import huge_pages, stopping


def start(name: str) -> None:
    """Runs the program of this name, a module of this package."""
    huge_pages.use()
    stopping.listen()
    program = importlib.import_module("imvad_jax.programs.program")
    program.flags.disclaim_key_flags()  # the program's flags are those of the file that was started
    program.start(importlib.import_module(f"imvad_jax.programs.{name}"))


if __name__ == "__main__":
    start(sys.argv.pop(1))
