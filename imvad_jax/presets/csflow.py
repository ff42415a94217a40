"""Presets of CS-Flow (Rudolph et al., 2022); all report the last epoch.

The official setting (EfficientNet-B5 as efficientnet_pytorch pads it, 768 pixels, 240 epochs of
batches of 16, 275 million parameters):

    imvad run --method=csflow --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/tf_efficientnet_b5.aa_in1k@main \\
        --workdir=RUN

`benchmark` takes its optimiser: Adam's usual epsilon of 1e-8 and no clipping, with which a training
may diverge (one of its fifteen did). Not reproduced: its features are those of the block after
(512 channels, of which its permutations let 304 through), and its score is twice ours, which ranks
the images the same.

`cpu` is ResNet-18 at 256 pixels with narrow subnets. The learning rate of the short presets is
larger because the factors of the subnets, which start at zero, move by about that much a step.
`demo` takes many steps of few images: after few large ones rounding decides what it finds.
"""

from imvad_jax.methods.csflow import CSFlowConfig


def presets() -> dict[str, CSFlowConfig]:
    """The named configurations."""
    return {
        "official": CSFlowConfig(),
        "benchmark": CSFlowConfig(epsilon=1e-8, gradient_clip=0.0),
        "cpu": CSFlowConfig(
            backbone="resnet18",
            layer="layer3",
            image_size=256,
            hidden=64,
            epochs=20,
            learning_rate=3e-3,
        ),
        "demo": CSFlowConfig(
            backbone="efficientnet_lite0",
            image_size=384,
            flow_blocks=2,
            hidden=32,
            epochs=40,
            batch_size=4,
            learning_rate=2e-3,
        ),
        "smoke": CSFlowConfig(
            backbone="resnet18",
            layer="layer2",
            image_size=64,
            flow_blocks=1,
            hidden=8,
            epochs=20,
            batch_size=8,
            learning_rate=5e-3,  # so that a few dozen steps learn something
        ),
    }
