"""Presets of CutPaste (Li et al., 2021).

The paper's network, ResNet-18 from scratch, 256 epochs of 256 steps (65,536 in all, for a GPU):

    imvad run --method=cutpaste --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --workdir=RUN

`benchmark` is the ViT-B/16 behind the published table, original against cutpaste. Unlike there,
the cross entropy sees logits (not softmax twice), all parameters are trained (not the patch
embedding), the Gaussian is of the good images as they are (not of all that was seen in training),
and the aspect of the piece is log-uniform between fixed bounds. Its weights are
`hub:timm/vit_base_patch16_224.sam_in1k@main`.

`runinho` is pytorch-cutpaste's 3-way model as behind its figures: from scratch, batches of 32,
10,000 steps, one hidden layer in the head. As in `official` and `patches`, the scar has hard edges.

`patches` is the paper's localisation: the same network on patches of 64 pixels, and a map.

`cpu` starts from ImageNet weights, too, embeds at layer 3 of ResNet-18, and sees patches of 64 of
the 256 pixels: of images as a whole, so short a training learns nothing about small defects.

    imvad run --method=cutpaste --preset=cpu --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

`demo` is a small ResNet-18 from scratch. It sees patches, since drawn defects are small.
"""

from imvad_jax.methods.cutpaste import CutPasteConfig


def presets() -> dict[str, CutPasteConfig]:
    """The named configurations."""
    return {
        "official": CutPasteConfig(hard_edges=True),
        "benchmark": CutPasteConfig(
            backbone="vit_base_patch16_224",
            pretrained=True,
            embedding_layer="cls",
            variant="cutpaste",
            head_layers=0,
            head_dim=0,
            image_rotation=90.0,
            normalize=True,
            image_size=224,
            steps_per_epoch=0,
            optimizer="adam",
            learning_rate=1e-4,
            weight_decay=1e-5,
        ),
        "patches": CutPasteConfig(patch_size=64, hard_edges=True),
        "runinho": CutPasteConfig(
            normalize=True,
            hard_edges=True,
            head_layers=1,
            batch_size=32,
            epochs=100,
            steps_per_epoch=100,
        ),
        "cpu": CutPasteConfig(
            pretrained=True,
            embedding_layer="layer3",
            patch_size=64,
            patch_stride=16,
            batch_size=16,
            epochs=60,
            steps_per_epoch=0,
            learning_rate=0.01,
        ),
        "demo": CutPasteConfig(
            embedding_layer="layer2",
            variant="union",
            head_dim=64,
            image_size=128,
            patch_size=32,
            patch_stride=8,
            batch_size=16,
            epochs=50,
            steps_per_epoch=30,
            optimizer="adam",
            learning_rate=2e-3,
        ),
        "smoke": CutPasteConfig(
            embedding_layer="layer1",
            image_size=64,
            head_dim=16,
            epochs=4,
            steps_per_epoch=0,
            batch_size=4,
        ),
    }
