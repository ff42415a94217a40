"""Presets of FAVAE (Dehaene and Eline, 2020).

The setting of the common code that it follows (VGG-16 on [0, 1], 100 epochs of 125 batches of 64
augmented images at 128 pixels, as there a fifth of 10,000 is held out; for a GPU):

    imvad run --method=favae --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=bottle --weights=hub:timm/vgg16.tv_in1k@main --workdir=RUN

`benchmark` is open-iad's: no augmentation, one pass over the images per epoch (for 60 images of
toothbrush a single step: 100 in all), a teacher that normalises. Three of its traits are left out,
being slips and no choices: it normalises the image that a sigmoid has to restore, too; it smooths
maps along their rows only; and it runs the decoder twice a step, which moves the running statistics
twice.

`cpu` takes ResNet-18, whose grids are half as fine as VGG's, a quarter of the width, batches small
enough for many steps, and a rate that falls to zero.
"""

from typing import Any

from imvad_jax.methods.favae import FAVAEConfig

# Without augmentation the teacher's features of an image stay the same, and are computed once.
PLAIN: dict[str, Any] = {
    "normalize_teacher": True,
    "augment": False,
    "steps_per_epoch": 0,
    "cache_features": True,
}
RESNET: dict[str, Any] = PLAIN | {"backbone": "resnet18", "layers": ("layer1", "layer2", "layer3")}


def presets() -> dict[str, FAVAEConfig]:
    """The named configurations."""
    return {
        "official": FAVAEConfig(steps_per_epoch=125),
        "benchmark": FAVAEConfig(**PLAIN),
        "cpu": FAVAEConfig(**RESNET, width=32, batch_size=8, epochs=60, schedule="cosine"),
        "demo": FAVAEConfig(
            **PLAIN, backbone="efficientnet_lite0", layers=("layer1", "layer2", "layer3"),
            width=16, latent_size=20, batch_size=4, epochs=60, schedule="cosine",
        ),
        "smoke": FAVAEConfig(
            # Of these layers half the teacher compiles.
            **PLAIN, backbone="resnet18", layers=("layer1_pre", "layer1", "layer2"),
            image_size=64, width=8, latent_size=16, batch_size=4, epochs=20, learning_rate=1e-2,
        ),
    }  # fmt: skip
