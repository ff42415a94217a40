"""Measures the most important figures of a new device within a few minutes.

    imvad suite --pack=DIR --data_dir=MVTEC --weights=FILE
    imvad suite --data_cache=DIR --weights=DIR/weights.safetensors \\
        --time_limit=9m --out=OUT

The first command writes the data directory to copy to the device, the second one measures there.
The same command resumes unfinished work. docs/devices.md says what is measured, and in which order.
"""

from functools import partial

from absl import flags

from imvad_jax import locks
from imvad_jax.benchmarks.suite import plan, suite
from imvad_jax.benchmarks.suite.pack import pack_all
from imvad_jax.commands import command
from imvad_jax.errors import UserError, choose, say
from imvad_jax.programs import output, program, time_limit
from imvad_jax.progress import track
from imvad_jax.training.limit import parse_seconds

_DATA_CACHE = program.define_path("data_cache", None, "Data directory that --pack wrote.")
_WEIGHTS = program.define_path(
    "weights", None, f"Weights file of {plan.BACKBONE} (.safetensors, .npz, .pth)."
)
_OUT = program.define_path("out", None, "Directory to write to.")
_PACK = program.define_path(
    "pack", None, "Only write the data directory for --data_cache: the images of "
    f"{' and '.join(plan.CATEGORIES)} from --data_dir, and the file --weights.",
)  # fmt: skip
_DATA_DIR = program.define_path("data_dir", None, "With --pack: directory of MVTec AD.")
_PARTS = flags.DEFINE_list(
    "parts", list(plan.PARTS), "Comma-separated parts to run. "
    + "; ".join(f"{name}: {what}" for name, what in plan.PARTS.items()) + ".",
)  # fmt: skip
_PRESET = flags.DEFINE_enum(
    "preset", "official", list(plan.SCALES), "official measures; smoke runs a small part at 64 "
    "pixels, to test the suite itself.",
)  # fmt: skip
FIRST = ("data_cache", "weights", "out", "time_limit", "parts", "pack", "data_dir", "json")
for module in (time_limit, output):
    flags.adopt_module_key_flags(module)


def make_parcel() -> int:
    """Writes the data directory for the device."""
    for name, flag in (("data_dir", _DATA_DIR), ("weights", _WEIGHTS)):
        if not flag.value:
            raise UserError(f"--{name} is missing: --pack needs both --data_dir and --weights")
    scale = plan.SCALES[_PRESET.value]
    sizes = pack_all(_PACK.value, _DATA_DIR.value, _WEIGHTS.value, scale, progress=track)
    lines = [f"{path}: {size / 2**20:.1f} MiB" for path, size in sizes.items()]
    lines.append(f"{sum(sizes.values()) / 2**20:.1f} MiB in all")
    files = {str(path): size for path, size in sizes.items()}
    output.result("\n".join(lines), {"pack": _PACK.value, "bytes": files})
    return 0


def main() -> int:
    """The program."""
    if _PACK.value:
        return make_parcel()
    for name, flag in (("data_cache", _DATA_CACHE), ("weights", _WEIGHTS), ("out", _OUT)):
        if not flag.value:
            raise UserError(f"--{name} is missing; see --help")
    parts = [choose("--parts", part, plan.PARTS) for part in _PARTS.value]
    with locks.hold(_OUT.value, "--out"):
        return make_suite(parts)


def make_suite(parts: list[str]) -> int:
    """Measures what is left of the parts; returns the exit status."""
    limit = time_limit.start_limit()
    begun, given = limit.clock() - time_limit.process_age(), flags.FLAGS.time_limit
    found = suite.prepare(
        _DATA_CACHE.value, _WEIGHTS.value, _OUT.value, preset=_PRESET.value, parts=parts,
        command=command("suite"),
    )  # fmt: skip
    suite.check_fits(found, limit, given)
    unpack = partial(suite.unpack, found, _DATA_CACHE.value)
    finished = suite.make(found, limit, unpack, say)
    whole = parse_seconds(given) if given else None
    lines = suite.close(found, limit.clock() - begun, whole)
    document = {"out": _OUT.value, "finished": finished, "steps": found.states, "summary": lines}
    output.result("\n".join(lines), document)
    if any(state["state"] == "failed" for state in found.states.values()):
        return 1
    if not finished:
        raise limit.stop("something is left; the same command goes on")
    return 0
