"""One drawn category, a detector of a preset on it, and its row of metrics."""

import jax
import pytest

from imvad_jax import backbones, methods, presets
from imvad_jax.backbones.weights import DEMO_PACKAGE, load_weights
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.demo import write_demo_dataset
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score

# The drawn hexnut, or where its free turning is more than a test's few images and epochs teach,
# another drawn part.
CATEGORIES = {"csflow": "fabric", "cutpaste": "fabric", "draem": "fabric", "favae": "tablet"}
# Good images that are drawn where the few of the others are too few; 60 is what `make demo` draws.
GOOD_IMAGES = {"csflow": 60, "draem": 200}


def category_of(method: str) -> str:
    """The category that the method is shown on."""
    return CATEGORIES.get(method, "hexnut")


def draw(root, category: str, good_images: int | None) -> str:
    """Draws the category below `root`, a path that is made; None for few good and bad images."""
    sizes = {"train": 40, "test_good": 12, "test_per_defect": 4}
    if good_images is not None:
        sizes = {"train": good_images}
    write_demo_dataset(root, [category], progress=False, **sizes)
    return str(root)


def metrics(parts: str, method: str, preset: str, devices: int, **overrides) -> dict:
    """Fits on the good parts and evaluates; the test is skipped where the weights are missing."""
    config = presets.resolve(method, preset, {k: str(v) for k, v in overrides.items()})
    geometry = Geometry.of(config)
    data = open_category("mvtec_ad", parts, category_of(method), geometry, None)
    detector = methods.make(method, config)
    backbone = None
    if detector.outputs:
        try:
            spec = backbones.get(config.backbone)
            backbone = load_weights(spec, f"package:{DEMO_PACKAGE}", detector.outputs).variables
        except UserError as error:
            pytest.skip(str(error))
    parallel = Parallel(jax.local_devices()[:devices])
    variables = fit(detector, init_variables(detector, backbone, 0), data.train, parallel)
    found = score(detector, variables, data.test, parallel)
    row = image_metrics(found.image, data.labels)
    return row if found.maps is None else row | pixel_metrics(found.maps, data.masks)
