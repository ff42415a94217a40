"""Exports the fitted detector of a run to one file that runs without this package.

    imvad export --workdir=RUN --output=FILE --format=stablehlo|savedmodel|onnx

The exported function takes uint8 images and returns scores and maps. It is loaded in a process of
its own and compared with the detector before it is kept. Exit status: 0 if it was written, else 2.
"""

from pathlib import Path

from absl import flags

from imvad_jax.errors import UserError, choose, say
from imvad_jax.export import check, exporter, whole
from imvad_jax.export.exporter import FORMATS, PLATFORMS
from imvad_jax.model import store
from imvad_jax.programs import devices, output, program

_WORKDIR = program.define_path("workdir", None, "Directory of a finished run.")
_OUTPUT = program.define_path("output", None, "File to write, or folder for savedmodel.")
_FORMAT = flags.DEFINE_string("format", "stablehlo", f"Format of the file: {', '.join(FORMATS)}.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export at --output.")
_PLATFORMS = flags.DEFINE_list(
    "platforms",
    list(exporter.DEFAULT_PLATFORMS),
    f"Comma-separated platforms to compile for: {', '.join(PLATFORMS)}; cpu is always included. "
    "Ignored for ONNX.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Fixed number of images per batch; 0 accepts any number.", lower_bound=0
)
_CHECK_IMAGES = program.define_path(
    "check_images", None, "Folder of images on which the export is compared with the detector. "
    "Default: test images of the run if they are in the decoded cache, otherwise noise.",
)  # fmt: skip
FIRST = ("workdir", "output", "format", "batch_size", "overwrite", "json")
for module in (devices, output):
    flags.adopt_module_key_flags(module)


def main() -> int:
    """The program."""
    for name in ("workdir", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing; see --help")
    if flags.FLAGS.num_processes != 1:
        raise UserError("--num_processes: an export is made by one process")
    kind = choose("--format", _FORMAT.value, FORMATS)
    named = [choose("--platforms", name, PLATFORMS) for name in _PLATFORMS.value]
    platforms = tuple(dict.fromkeys(["cpu", *named]))
    run_dir, path = Path(_WORKDIR.value), Path(_OUTPUT.value)
    exporter.check_output(path, kind, _OVERWRITE.value)  # before JAX starts
    store.read(run_dir, f"--workdir={run_dir}")
    devices.start_jax()
    function = whole.restore(run_dir)
    exporter.check_output(path, kind, _OVERWRITE.value, function.nbytes)
    FORMATS[kind].check(function)
    images, source = check.choose_images(function, _CHECK_IMAGES.value, devices.decoded_dir())
    try:
        parity = exporter.export(
            function, kind, path, platforms=platforms, batch_size=_BATCH_SIZE.value, images=images
        )
    except BrokenPipeError:  # nobody reads what is said
        raise
    except OSError as error:
        raise UserError(f"--output={path}: cannot be written ({error.strerror})") from None
    if not function.model.calibration:
        say("this run has no threshold: only raw scores and maps are exported")
    size = _size(path)
    lines = [
        f"compared with the detector on {source}; largest difference, relative to the largest "
        f"value (allowed {check.TOLERANCE:g}):",
        *(f"  {name:<17}{value:.1e}" for name, value in parity.items()),
        f"written to {path} ({size / 1e6:.1f} MB): {_summary(function)}",
    ]
    document = {
        "output": str(path), "format": kind, "bytes": size, "compared_on": source,
        "largest_differences": parity, "threshold": bool(function.model.calibration),
    }  # fmt: skip
    output.result("\n".join(lines), document)
    return 0


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _summary(function: whole.Whole) -> str:
    size, batch = function.model.input_size, _BATCH_SIZE.value or "B"
    return f"uint8 [{batch}, {size}, {size}, 3] -> {', '.join(function.output_shapes())}"
