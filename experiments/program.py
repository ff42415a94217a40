"""What every program shares: bad input and bad flags end in one line and exit status 2."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from imvad_jax.errors import UserError


def fail(message: str) -> None:
    """Prints one line and ends the program with status 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(argv))
    except flags.Error as error:
        fail(str(error))
    if len(rest) > 1:
        fail(
            f"unexpected argument '{rest[1]}'; flags are written --name=value, and patterns in "
            "quotes: --input='parts/*.png'"
        )
    return rest


def guard(main: Callable[[], int | None]) -> int | None:
    """Calls `main`; a UserError becomes one line on stderr and exit status 2."""
    try:
        return main()
    except UserError as error:
        fail(str(error))


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags and runs `main` under `guard`."""

    def start(argv):
        del argv
        logging.set_verbosity(logging.WARNING)
        return guard(main)

    app.run(start, flags_parser=parse)
