"""Test images at the training's brightness, and the metrics of what a method says of them."""

from collections.abc import Callable

import numpy as np

from imvad_jax.data.batches import ArrayImages
from imvad_jax.data.category import CategoryData
from imvad_jax.errors import UserError
from imvad_jax.reporting.metric_names import BRIGHTNESS_MATCHED, format_value
from imvad_jax.runs.evaluate import compute_metrics
from imvad_jax.runs.specs import Options
from imvad_jax.training.score import Scores


def check(data: CategoryData) -> tuple[ArrayImages, ArrayImages]:
    """The images of training and test.

    Raises:
      UserError: They are in tiles, or too many to be held in memory.
    """
    train, test = data.train, data.test
    if not isinstance(test, ArrayImages) or not isinstance(train, ArrayImages):
        raise UserError(
            "--brightness_matched: it shifts images that are held in memory; leave it out with "
            "--tile, and for categories that are decoded anew in every pass"
        )
    return train, test


def matched(data: CategoryData) -> ArrayImages:
    """The test images, the mean of each shifted to the mean over the training images.

    All values of an image are raised or lowered by one number, rounded, and cut off at 0 and 255:
    defects keep their contrast, and no method can rank images by their brightness.

    Raises:
      UserError: as `check`.
    """
    train, test = check(data)
    wanted = np.mean([image.mean() for image in train.images])
    shifted = np.empty_like(test.images)
    for number, image in enumerate(test.images):
        shift = int(np.rint(wanted - image.mean()))
        shifted[number] = np.clip(image.astype(np.int16) + shift, 0, 255)
    return ArrayImages(shifted, test.reader)


def metrics_of(
    scores: Scores, data: CategoryData, options: Options, log: Callable[[str], object]
) -> dict:
    """The row of the table from scores of `matched` images, by names of its own; says the AUROC."""
    found = compute_metrics(scores, data, options)
    log(
        "audit: with the mean of each test image shifted to the training's, the image AUROC is "
        f"{format_value(found['image_auroc'])}"
    )
    return {BRIGHTNESS_MATCHED + name: value for name, value in found.items()}
