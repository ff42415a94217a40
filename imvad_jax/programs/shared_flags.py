"""Flags that the programs which make cells of the table share: what to read, what to write."""

from absl import flags

from imvad_jax.data import categories, layouts
from imvad_jax.data.reading import Reading, parse_full_scale
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.programs import config_flags, devices, program
from imvad_jax.training.loops import LOOPS

PRESET = flags.DEFINE_string(
    "preset", "official", "Named configuration: official (the authors' settings), benchmark (those "
    "of the published table), cpu (feasible on two cores), demo, or smoke (tiny, for tests).",
)  # fmt: skip
DATASET = flags.DEFINE_string(
    "dataset", "mvtec_ad", f"Layout of --data_dir: {', '.join(layouts.LAYOUTS)}."
)
DATA_DIR = program.define_path(
    "data_dir", None, "Directory of the dataset. If omitted, only the decoded cache is used."
)
WEIGHTS = program.define_sources(
    "weights", None, "Pretrained weights of the backbone: a file (.safetensors, .npz, .pth, ...; "
    "see docs/weights.md), hub:OWNER/NAME@REVISION, package:NAME, or random (for tests).",
)  # fmt: skip
WORKDIR = program.define_path("workdir", None, "Directory to write to.")
RESULTS_DIR = program.define_path(
    "results_dir", "", "Directory for an additional small result file per run, from which the "
    "results page is made.",
)  # fmt: skip
SAVE_PREDICTIONS = flags.DEFINE_bool(
    "save_predictions", True, "Write predictions.npz and the report made from it."
)
SAVE_HEATMAPS = flags.DEFINE_bool("save_heatmaps", True, "Write a heat map per test image.")
BRIGHTNESS_MATCHED = flags.DEFINE_bool(
    "brightness_matched", False, "Score the test images a second time, each shifted to the mean "
    "brightness of the training images, and add the metrics as brightness_matched_NAME "
    "(docs/audit.md).",
)  # fmt: skip
CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every", 0, "Epochs between two training checkpoints; 0 writes about twenty in all.",
    lower_bound=0,
)  # fmt: skip
TRAINING_LOOP = flags.DEFINE_enum(
    "training_loop", "auto", list(LOOPS), "Where the training loop runs: host (one call per "
    "batch), device (all images are copied to each device, and one call takes many steps), or "
    "auto, which is device on accelerators if the images fit there, otherwise host. A resumed run "
    "keeps the loop it started with.",
)  # fmt: skip
_TILE = flags.DEFINE_integer(
    "tile", 0, "Split images into square tiles of this many pixels per side at the original "
    "resolution and resize each tile to --image_size; 0 means no tiles. Use it for defects too "
    "small to survive resizing the whole image.",
)  # fmt: skip
_OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Overlap of neighbouring tiles in pixels. Default: an eighth of --tile."
)
_FULL_SCALE = flags.DEFINE_string(
    "full_scale", "auto", "Pixel value that means white in files deeper than 8 bits, such as 1023 "
    "for a 10-bit camera. auto takes the smallest of 255, 1023, 4095, 16383 and 65535 that no good "
    "image exceeds, and 1 for floating-point files.",
)  # fmt: skip
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels", Reading.max_megapixels, "Largest size of an image in megapixels; larger ones "
    "are refused.",
)  # fmt: skip
_MASK_VALUES = flags.DEFINE_string(
    "mask_values", "auto", "Mask values that mark a defect: nonzero; half (at least half of the "
    "largest value in the category); or auto, which decides by file type (docs/datasets.md).",
)  # fmt: skip
_MASK_ORIENTATION = flags.DEFINE_string(
    "mask_orientation", "auto", "Orientation of masks whose image is rotated by an EXIF tag, if "
    "the sizes leave it open: stored (drawn on the pixels as stored), shown (drawn on the upright "
    "image) or auto (as the other masks of the category).",
)  # fmt: skip
_RECURSIVE = flags.DEFINE_bool(
    "recursive", False, "With --dataset=folder: also use images in subfolders."
)
_ON_BAD_IMAGE = flags.DEFINE_string(
    "on_bad_image", "error", "What to do with unreadable images: error ends the run; skip (only "
    "with --dataset=folder) leaves them out and lists them.",
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
            raise UserError("--overlap: needs --tile")
        return None
    if flags.FLAGS.num_processes != 1:
        raise UserError("--tile: a run with tiles uses one process; omit --num_processes")
    return Tiling.of(_TILE.value, _OVERLAP.value)
