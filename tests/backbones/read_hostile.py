"""Reads files of weights in a process of its own, in 512 MiB beyond what it starts with.

Prints one JSON line per file: its name, what came of it, the processor's seconds.
"""

import json
import resource
import sys
import time
from pathlib import Path

from imvad_jax.backbones import get
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError

MEMORY = 1 << 29


def outcome(path: str) -> str:
    try:
        load_weights(get("resnet18"), path, ("layer1",))
    except UserError as error:
        return str(error)
    return "loaded"


def main() -> None:
    """Reads the files that standard input names, a line each."""
    get("resnet18").variables_template(("layer1",))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in sys.stdin.read().splitlines():
        start = time.process_time()
        found = outcome(path)
        print(json.dumps([path, found, time.process_time() - start]), flush=True)


if __name__ == "__main__":
    main()
