"""Scores new images with a fitted detector and writes verdicts, outlines and a report page.

    imvad predict --workdir=RUN --input=PARTS --output=DIR

--input is a file, a folder or a pattern. DIR then holds index.html, results.csv, results.json and
heatmaps/. Exit status: 0 if all images were scored; 3 if some could not be read, which all reports
list; 2 if nothing could be done, or if --on_bad_image=error met such a file. What was scored until
then is written in that case, and also after Ctrl-C (status 130) or SIGTERM (143).
"""

import dataclasses
from pathlib import Path

from absl import flags

from imvad_jax import sealed
from imvad_jax.commands import command
from imvad_jax.data.decode import Reader
from imvad_jax.data.inputs import find_images
from imvad_jax.data.listing import UNREADABLE, NotUsed, summarize
from imvad_jax.data.reading import Reading, parse_full_scale
from imvad_jax.errors import UserError, choose, say
from imvad_jax.evaluation.calibration import check_quantile
from imvad_jax.model import load, store
from imvad_jax.programs import devices, output, program, stopping
from imvad_jax.runs import predictor
from imvad_jax.training.limit import Limit

SKIPPED = 3  # exit status: done, but for files that could not be read
NAMED = 20  # such files named on the terminal; all are named in the results

_WORKDIR = program.define_path("workdir", None, "Directory of a finished run.")
_INPUT = program.define_paths(
    "input", [], "Images to score: a file, a folder (searched recursively), or a quoted pattern "
    "such as 'parts/*.png'. May be repeated.",
)  # fmt: skip
_OUTPUT = program.define_path("output", None, "Directory to write to; an earlier result in it is "
                              "replaced.")  # fmt: skip
_ON_BAD_IMAGE = flags.DEFINE_string(
    "on_bad_image", "skip", "What to do with unreadable files: skip leaves them out and lists "
    "them; error ends the program.",
)  # fmt: skip
_THRESHOLD = flags.DEFINE_float(
    "threshold", 0.5, "Images with a score above this value are called defective; 0.5 is the "
    "calibrated threshold.",
)  # fmt: skip
_GOOD = program.define_paths(
    "good", [], "Good images that the detector was not fitted on, given like --input. The "
    "thresholds are set from these images instead of those of the run.",
)  # fmt: skip
_QUANTILE = flags.DEFINE_float(
    "threshold_quantile", 0.95, "With --good: the threshold is this quantile of their scores."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Images per batch; 0 uses the batch size of the run.", lower_bound=0
)
_PICTURE_SIZE = flags.DEFINE_integer(
    "picture_size", 768, "Longest side of the heat maps, in pixels.", lower_bound=64
)
_PAGE_IMAGES = flags.DEFINE_integer(
    "page_images", 500, "Number of images shown on the page, those with the highest scores; the "
    "page embeds them. Its counts and results.csv always cover all images.", lower_bound=0,
)  # fmt: skip
_FULL_SCALE = flags.DEFINE_string(
    "full_scale", "auto", "Pixel value that means white in files deeper than 8 bits; auto uses "
    "the value of the run.",
)  # fmt: skip
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", Reading.max_megapixels, "Largest size of an image in megapixels; larger ones "
    "are not scored.",
)  # fmt: skip
FIRST = ("workdir", "input", "output", "threshold", "good", "on_bad_image", "json")
for module in (devices, output):
    flags.adopt_module_key_flags(module)


def find_reader(record: dict) -> Reader:
    """How files are read: as those that the detector was fitted on, if no flag says otherwise."""
    given = Reading(parse_full_scale(_FULL_SCALE.value), _MAX_MEGAPIXELS.value)
    if given.full_scale is None:
        return Reader.of_record(record, given.max_megapixels)
    return Reader(given.full_scale, True, given.max_megapixels)


def main() -> int:
    """The program."""
    for name in ("workdir", "input", "output"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing; see --help")
    if flags.FLAGS.num_processes != 1:
        raise UserError(
            "--num_processes: prediction runs in one process; give each its own --input"
        )
    choose("--on_bad_image", _ON_BAD_IMAGE.value, ("skip", "error"))
    check_quantile(_QUANTILE.value)
    if flags.FLAGS["threshold_quantile"].present and not _GOOD.value:
        raise UserError(
            "--threshold_quantile: only with --good; to change the quantile of the run, repeat the "
            "command of the run with it (nothing is fitted again), or use --threshold"
        )
    if not 0 < _THRESHOLD.value < 1:
        raise UserError(f"--threshold={_THRESHOLD.value}: expected a number between 0 and 1")
    limit = Limit()
    stopping.watch(limit)
    run_dir, folder = Path(_WORKDIR.value), Path(_OUTPUT.value)
    record = store.read(run_dir, f"--workdir={run_dir}")
    if store.read_thresholds(run_dir, record) is None and not _GOOD.value:
        raise UserError(
            f"--workdir={run_dir}: this run has no threshold; pass good images that it was not "
            "fitted on with --good, or fit again with --holdout=0.2"
        )
    written = [str(folder / name) for name in ("index.html", "results.csv", "results.json")]
    listing = find_images(_INPUT.value, folder / "heatmaps", written=written)
    # Before anything is decoded.
    predictor.check_output(folder, predictor.names_of(listing.images, listing.not_used)[0])
    good = find_images(_GOOD.value, flag="--good").images if _GOOD.value else []
    reader = find_reader(record)
    model = dataclasses.replace(load(run_dir, devices.start_jax()), reader=reader)
    if good:
        model = predictor.calibrate_from(model, good, _QUANTILE.value, _BATCH_SIZE.value, limit)
    assert model.calibration  # the run's, or that of the good images
    say(model.calibration.describe())
    limit.check("the images")  # before an earlier result goes
    options = predictor.Options(
        threshold=_THRESHOLD.value, on_bad_image=_ON_BAD_IMAGE.value,
        batch_size=_BATCH_SIZE.value, picture_size=_PICTURE_SIZE.value,
        page_images=_PAGE_IMAGES.value,
    )  # fmt: skip
    found = predictor.predict(
        model, listing.images, folder, options, workdir=str(run_dir), command=command("predict"),
        not_used=listing.not_used, limit=limit,
    )  # fmt: skip
    for name, reason in found.unreadable[:NAMED]:
        say(f"not scored: {name}: {reason}")
    if len(found.unreadable) > NAMED:
        say(f"... and {len(found.unreadable) - NAMED} more, see results.csv")
    for note in found.notes:
        say(f"note: {note}")
    known = sum(item.picture for item in found.not_used)
    unreadable = [NotUsed(name, UNREADABLE) for name, _ in found.unreadable[known:]]
    lines = [
        f"{len(found.images)} images scored: {found.defective} defective, "
        f"{len(found.images) - found.defective} good; {len(found.unreadable)} files not scored"
    ]
    if found.not_used or unreadable:
        lines.append(summarize(len(found.images), [*found.not_used, *unreadable]))
    lines.append(f"written to {folder}; open index.html there")
    document = {"output": str(folder), "page": str(folder / "index.html")}
    output.result("\n".join(lines), document | sealed.read(folder / "results.json"))
    return SKIPPED if found.unreadable else 0
