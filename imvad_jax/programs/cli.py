"""The console command: `imvad COMMAND --flag=value ...`.

It imports nothing that takes time until it knows which program is wanted.
"""

import difflib
import sys
from collections.abc import Sequence

from imvad_jax import __version__, commands
from imvad_jax.errors import escaped
from imvad_jax.programs import entry, registry

_HELP = ("-h", "-help", "--help", "-?", "--?", "--helpfull", "--helpshort")
_WIDTH = max(map(len, registry.PROGRAMS))
ERROR = 2


def screen(front: str) -> str:
    """What `imvad --help` says."""
    lines = [
        "Visual anomaly detection for industrial parts: fit on good parts alone, then find and",
        "outline the defects of others.",
        "",
        f"usage: {front} COMMAND --flag=value ...",
    ]
    for title, programs in registry.GROUPS.items():
        lines += ["", f"{title}:", *(f"  {n:{_WIDTH}}  {t}" for n, t in programs.items())]
    lines += [
        "",
        f"First steps: {front} demo; then, on a folder of good parts,",
        f"  {front} fit --data_dir=GOOD_PARTS --workdir=RUN",
        f"  {front} predict --workdir=RUN --input=NEW_PARTS --output=OUT",
        "",
        f"{front} COMMAND --help    its main flags; --helpfull: all of them",
        f"{front} --version         the version",
        "Results go to stdout (with --json as one JSON document), all else to stderr.",
    ]
    return "\n".join(lines)


def unknown(name: str, front: str) -> str:
    """What is said of a command that is none."""
    more = f"{front} --help lists all commands"
    if name.startswith("-"):
        return f"'{name}' stands where the command belongs: {front} COMMAND {name} ...; {more}"
    if name in registry.OF_THE_REPOSITORY:
        return f"'{name}' is for a checkout of the repository: {commands.CHECKOUT}.{name}"
    plain = name.lower().replace("-", "_")
    # A word of another tool for the same is no typo, and yet meant.
    meant = {"train": "fit", "test": "run", "eval": "run", "score": "predict", "infer": "predict"}
    near = [meant[plain]] if plain in meant else []
    near = near or difflib.get_close_matches(plain, registry.PROGRAMS, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"'{name}' is no command; {hint}{more}"


def main(front: str = commands.IMVAD, given: Sequence[str] | None = None) -> None:
    """The command. `front` is what the user typed before the name of a program.

    The exit status is 2 where there is no such program.
    """
    name, *rest = [*(sys.argv[1:] if given is None else given), ""]
    if name == "help" and rest[0] in registry.PROGRAMS:  # imvad help predict
        name, rest = rest[0], ["--help", ""]
    if name in registry.PROGRAMS:
        sys.argv = [f"{front} {name}", *rest[:-1]]
        return entry.start(name, front)
    if name in (*_HELP, "help"):
        print(screen(front))
        sys.exit(0)
    if name in ("--version", "-version", "version"):
        print(f"imvad_jax {__version__}")
        sys.exit(0)
    said = f"error: {escaped(unknown(name, front))}" if name else screen(front)
    print(said, file=sys.stderr)
    sys.exit(ERROR)
