"""The demo's job on one drawn category: pretrained features beat the baseline by far."""

import jax
import pytest

from experiments import settings
from imvad_jax import backbones, methods
from imvad_jax.backbones.weights import DEMO_PACKAGE, load_weights
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.demo import write_demo_dataset
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "parts"
    write_demo_dataset(root, ["hexnut"], train=40, test_good=12, test_per_defect=4, progress=False)
    return str(root)


def metrics(parts, method, preset, devices, size, **overrides):
    data = open_category("mvtec_ad", parts, "hexnut", Geometry(size, size), None)
    config = settings.resolve(method, preset, overrides | {"image_size": str(size)})
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
    return image_metrics(found.image, data.labels) | pixel_metrics(found.maps, data.masks)


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_pretrained_features_find_what_colours_do_not(parts, method):
    found = metrics(parts, method, "demo", devices=2, size=256)
    baseline = metrics(parts, "raw_color", "official", devices=2, size=256)
    assert found["image_auroc"] >= 0.9
    assert found["image_auroc"] >= baseline["image_auroc"] + 0.1
    assert found["pixel_pro"] >= baseline["pixel_pro"] + 0.1


SMALL = {"padim": {"num_channels": "24"}, "patchcore": {}, "spade": {}, "raw_color": {}}


@pytest.mark.parametrize("method", SMALL)
def test_metrics_of_1_and_8_devices_agree_to_1e_4(parts, method):
    preset = "official" if method == "raw_color" else "demo"
    one, eight = (
        metrics(parts, method, preset, devices, size=96, **SMALL[method]) for devices in (1, 8)
    )
    assert one == pytest.approx(eight, abs=1e-4)
