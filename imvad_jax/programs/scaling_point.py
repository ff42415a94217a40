"""One point of the scaling of `imvad benchmark`, in a process of its own.

    python -m imvad_jax.programs.entry scaling_point --num_devices=2 < REQUEST.json

The figures are the last line of its output, as JSON. So the peak memory is the point's own, and
every point has the number of devices that it names.
"""

import json
import sys

from imvad_jax.benchmarks.scaling_point import Request, point
from imvad_jax.programs import devices


def main() -> int:
    """The program."""
    request = Request(**json.load(sys.stdin))
    parallel = devices.start_jax()
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # memory of all points alike
    print(json.dumps(point(request, parallel)))
    return 0
