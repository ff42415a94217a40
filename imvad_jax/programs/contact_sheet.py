"""Shows the effect of an augmentation: originals, results and masks in one image.

    imvad contact_sheet --augmentation=cutpaste --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --out=sheet.png

One column per image. The first row holds the originals, each further row one output of the
augmentation.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imvad_jax.data import layouts
from imvad_jax.data.decode import Geometry, load_image
from imvad_jax.errors import UserError, choose
from imvad_jax.marks import MARK
from imvad_jax.ops import anomaly
from imvad_jax.ops.cutpaste import cutpaste, scar
from imvad_jax.owned import refuse_foreign, write_own
from imvad_jax.programs import program

GAP = 4  # pixels between pictures
GREY = 128  # of the gaps


def _pasted(paste, key: Array, image: Array) -> dict[str, Array]:
    augmented, mask = paste(key, image)
    return {"augmented": augmented, "mask": mask}


# From a key and an image [H, W, 3] in [0, 1] to pictures [H, W, 3] or masks [H, W], by name.
AUGMENTATIONS: dict[str, Callable[[Array, Array], dict[str, Array]]] = {
    "cutpaste": functools.partial(_pasted, cutpaste),
    "scar": functools.partial(_pasted, scar),
    "draem": anomaly.show,
    "draem_own": functools.partial(anomaly.show, own=1.0),
    "draem_matched": functools.partial(anomaly.show, matched=1.0),
}

_AUGMENTATION = flags.DEFINE_string(
    "augmentation", None, f"Augmentation to show: {', '.join(AUGMENTATIONS)}."
)
_DATA_DIR = program.define_path("data_dir", None, "Directory of the dataset.")
_DATASET = flags.DEFINE_string(
    "dataset", "mvtec_ad", f"Layout of --data_dir: {', '.join(layouts.LAYOUTS)}."
)
_CATEGORY = flags.DEFINE_string("category", None, "Category whose good images are used.")
_OUT = program.define_path("out", None, "PNG file to write.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the augmentation.", lower_bound=0)
_SIZE = flags.DEFINE_integer("size", 256, "Height and width of each image, in pixels.")
_COUNT = flags.DEFINE_integer("count", 8, "Number of images.", lower_bound=1)


def sheet(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of pictures `[N, H, W, 3]` or masks `[N, H, W]` in [0, 1] as one uint8 `[h, w, 3]`."""
    lines = []
    for pictures in rows.values():
        pictures = np.asarray(pictures, np.float32)
        if pictures.ndim == 3:
            pictures = np.repeat(pictures[..., None], 3, -1)
        shown = np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
        framed = np.pad(shown, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=GREY)
        lines.append(np.concatenate(framed, 1))
    whole = np.concatenate(lines, 0)
    return np.pad(whole, ((0, GAP), (0, GAP), (0, 0)), constant_values=GREY)


def load_images() -> np.ndarray:
    """The first good images that the flags name: float32 `[N, H, W, 3]` in [0, 1]."""
    layout = layouts.get(_DATASET.value)
    wanted = [_CATEGORY.value] if _CATEGORY.value else []
    names = layouts.select_categories(layout, _DATA_DIR.value, wanted)
    if not wanted and len(names) > 1:
        raise UserError(f"--category is missing; one of {', '.join(names)}")
    samples = layout.category(_DATA_DIR.value, names[0]).train[: _COUNT.value]
    geometry = Geometry(_SIZE.value, _SIZE.value)
    shape = (_SIZE.value, _SIZE.value, 3)  # grey images fill three channels
    images = [np.broadcast_to(load_image(s.path, geometry), shape) for s in samples]
    return np.stack(images).astype(np.float32) / 255


def main() -> None:
    """The program."""
    if not _AUGMENTATION.value:
        raise UserError(f"--augmentation is missing; one of {', '.join(AUGMENTATIONS)}")
    augment = AUGMENTATIONS[choose("--augmentation", _AUGMENTATION.value, AUGMENTATIONS)]
    if not _OUT.value:
        raise UserError("--out is missing; expected the picture to write, --out=FILE.png")
    if Path(_OUT.value).suffix.lower() != ".png":
        raise UserError(f"--out={_OUT.value}: expected a name that ends in .png")
    refuse_foreign(_OUT.value, "--out: ")
    images = load_images()
    keys = jax.random.split(jax.random.key(_SEED.value), len(images))
    rows = {"original": images, **jax.jit(jax.vmap(augment))(keys, jnp.asarray(images))}
    picture = Image.fromarray(sheet(rows))
    about = PngInfo()
    about.add_text("Comment", MARK)
    write_own(_OUT.value, lambda file: picture.save(file, "PNG", pnginfo=about))
    print(f"{len(images)} images; rows: {', '.join(rows)}; written to {_OUT.value}")
