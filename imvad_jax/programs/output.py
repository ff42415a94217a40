"""What a program prints: its result on standard output, as text or as one JSON document.

All else, `errors.say`, goes to standard error.
"""

import json
from typing import Any

from absl import flags

from imvad_jax import sealed

_JSON = flags.DEFINE_bool(
    "json", False, "Print the result to stdout as one JSON document. Messages go to stderr, with "
    "this flag or without.",
)  # fmt: skip


def result(text: str, document: Any) -> None:
    """Prints the result of a program: `text`, or with `--json` the `document`."""
    print(json.dumps(sealed.plain(document), indent=1) if _JSON.value else text, flush=True)
