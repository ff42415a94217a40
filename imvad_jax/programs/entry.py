"""Where the programs begin: signals are taken before anything that takes time is imported.

The console command (`cli`) and the files of `experiments` call it; programs that other programs
start are named to it: `python -m imvad_jax.programs.entry worker`.
"""

import gc
import importlib
import sys

from imvad_jax import collector, commands
from imvad_jax.programs import huge_pages, stopping


def start(name: str, front: str = commands.CHECKOUT) -> None:
    """Runs the program of this name, a module of this package, which a user started by `front`."""
    commands.started_by(front)
    begin(name)


def begin(name: str) -> None:
    """As `start`; commands are spelled as by the process that started this one."""
    huge_pages.use()
    stopping.listen()
    with collector.paused():
        program = importlib.import_module("imvad_jax.programs.program")
        chosen = importlib.import_module(f"imvad_jax.programs.{name}")
    gc.freeze()  # what was imported stays, and is no longer looked at
    program.start(chosen)


if __name__ == "__main__":
    begin(sys.argv.pop(1))
