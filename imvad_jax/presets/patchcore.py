"""Presets of PatchCore (Roth et al., 2022).

ResNet-18 at 256 without crop, 1 % of the patches kept (about a minute on two cores):

    imvad run --method=patchcore --preset=cpu --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

`official` counts, as the official code does, only those pixels of a mask as a defect that are 1
exactly after bilinear shrinking (on screw 30 % fewer). The table's image row is the official one;
so is `benchmark`, but for the masks.

`cpu` averages each channel over the window of a patch, as the paper says: with a ResNet-18, which
has few channels, the pools of the official code mix positions instead. Its image score is the
largest value of the smoothed map. BUILD_NOTES.md says why; what the code has there is
`--aggregation=official --image_score=patch`.

`presets.reached("patchcore", "cpu")` gives the figures reached, with their commands (RESULTS.md).
"""

from imvad_jax.methods.patchcore import PatchCoreConfig


def presets() -> dict[str, PatchCoreConfig]:
    """The named configurations."""
    return {
        "official": PatchCoreConfig(mask_rule="full"),
        "benchmark": PatchCoreConfig(),
        "cpu": PatchCoreConfig(
            backbone="resnet18", crop_size=0, coreset_ratio=0.01, aggregation="local_average",
            image_score="map",
        ),
        "demo": PatchCoreConfig(
            backbone="efficientnet_lite0", crop_size=0, coreset_ratio=0.01
        ),
        "smoke": PatchCoreConfig(
            backbone="resnet18", image_size=64, crop_size=0, coreset_ratio=0.1, embedding_dim=128,
            projection_dim=32, batch_size=8,
        ),
    }  # fmt: skip
