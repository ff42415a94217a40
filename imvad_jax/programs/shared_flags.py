"""Flags that the programs which make cells of the table share: what to read, what to write."""

from absl import flags

from imvad_jax.data import categories, layouts
from imvad_jax.data.reading import Reading, parse_full_scale
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.programs import config_flags, devices, program
from imvad_jax.training.loops import LOOPS

PRESET = flags.DEFINE_string(
    "preset", "official", "Named configuration: official (of the paper), benchmark, cpu (fits two "
    "cores), demo, smoke (tests).",
)  # fmt: skip
DATASET = flags.DEFINE_string(
    "dataset", "mvtec_ad", f"Which dataset --data_dir holds: {', '.join(layouts.LAYOUTS)}."
)
DATA_DIR = program.define_path(
    "data_dir", None, "Directory of the dataset. Left out: the decoded cache is used alone."
)
WEIGHTS = program.define_sources(
    "weights", None, "Pretrained weights: a file (.safetensors, .npz, .pth, ...: docs/weights.md), "
    "hub:OWNER/NAME@REVISION, package:NAME, or random (for tests).",
)  # fmt: skip
WORKDIR = program.define_path("workdir", None, "Directory that is written to.")
RESULTS_DIR = program.define_path(
    "results_dir", "", "Also write each cell's small result file here (see experiments.results)."
)
SAVE_PREDICTIONS = flags.DEFINE_bool(
    "save_predictions", True, "Write predictions.npz and the report made from it."
)
SAVE_HEATMAPS = flags.DEFINE_bool("save_heatmaps", True, "Write a heat map for each test image.")
BRIGHTNESS_MATCHED = flags.DEFINE_bool(
    "brightness_matched", False, "Score the test images a second time, the mean of each shifted to "
    "the training's, and add the metrics as brightness_matched_NAME (docs/audit.md).",
)  # fmt: skip
CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every", 0, "Epochs between two checkpoints of a training; 0: about twenty in all.",
    lower_bound=0,
)  # fmt: skip
TRAINING_LOOP = flags.DEFINE_enum(
    "training_loop", "auto", list(LOOPS), "What takes the steps of a training: host (one call a "
    "batch), device (all images lie on each device, and a call takes many steps), or auto: device "
    "on accelerators where the images fit, else host. A run goes on as it began.",
)  # fmt: skip
_TILE = flags.DEFINE_integer(
    "tile", 0, "Look at images in square tiles of this many pixels, at the images' own resolution, "
    "each resized to --image_size; for defects that vanish in the shrunken image. 0: no tiles.",
)  # fmt: skip
_OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Pixels by which neighbouring tiles overlap. Default: an eighth of --tile."
)
_FULL_SCALE = flags.DEFINE_string(
    "full_scale", "auto", "The value that is white in files deeper than 8 bits, such as 1023 of a "
    "10-bit camera. auto: the smallest of 255, 1023, 4095, 16383 and 65535 that no good image "
    "exceeds; for floating-point values 1.",
)  # fmt: skip
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", Reading.max_megapixels, "Larger pictures are refused."
)
_MASK_VALUES = flags.DEFINE_string(
    "mask_values", "auto", "Which values of a mask are a defect: nonzero; half (at least half of "
    "the largest value of the category); or auto, by the kind of file (docs/datasets.md).",
)  # fmt: skip
_MASK_ORIENTATION = flags.DEFINE_string(
    "mask_orientation", "auto", "What masks were drawn on where an EXIF tag turns their photo and "
    "the sizes do not tell: stored (the pixels as the file has them), shown (the upright photo) or "
    "auto (as the category's other masks).",
)  # fmt: skip
_RECURSIVE = flags.DEFINE_bool(
    "recursive", False, "With --dataset=folder: take the images of folders below, too."
)
_ON_BAD_IMAGE = flags.DEFINE_string(
    "on_bad_image", "error", "What is done about images that cannot be read: error, or (with "
    "--dataset=folder) skip, which leaves them out and names them.",
)  # fmt: skip
config_flags.define_config_flags()


def find_reading() -> Reading:
    """How files are to be read. Raises UserError for a value that makes no sense."""
    return Reading(
        parse_full_scale(_FULL_SCALE.value), _MAX_MEGAPIXELS.value, _MASK_VALUES.value,
        _MASK_ORIENTATION.value, _RECURSIVE.value, _ON_BAD_IMAGE.value,
    )  # fmt: skip


def find_categories(wanted: list[str]) -> list[str]:
    """The categories of the dataset that `wanted` names, as `categories.find_categories`."""
    return categories.find_categories(
        wanted, dataset=DATASET.value, data_dir=DATA_DIR.value, decoded_dir=devices.decoded_dir(),
        recursive=_RECURSIVE.value,
    )  # fmt: skip


def find_tiling() -> Tiling | None:
    """The tiles of the flags, None without any. Raises UserError where they make no sense."""
    if not _TILE.value:
        if _OVERLAP.value is not None:
            raise UserError("--overlap: it is tiles that overlap; give --tile, too")
        return None
    if flags.FLAGS.num_processes != 1:
        raise UserError("--tile: with tiles a run is of one process; leave --num_processes out")
    return Tiling.of(_TILE.value, _OVERLAP.value)
