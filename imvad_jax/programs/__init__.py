"""The command-line programs: flags, and one call each.

An older Python is told so here, before it meets a file whose syntax it does not know.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a checkout is started without being installed
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"error: imvad_jax needs Python 3.11 or newer; {sys.executable} is Python {found}")
