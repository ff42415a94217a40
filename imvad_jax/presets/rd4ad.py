"""Presets of RD4AD (Deng and Li, 2022), called `reverse` in the published table.

The official setting (WRN50-2, 200 epochs of batches of 16 at 256 pixels; for a GPU):

    imvad run --method=rd4ad --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/wide_resnet50_2.tv_in1k@main \\
        --workdir=RUN

`benchmark` is the recipe behind the published table: batches of 8, a weight decay of 1e-6, Adam's
usual first moment, and an embedding whose blocks are 512 wide inside.

`cpu` takes ResNet-18 and cuts the epochs. The figures it reaches and the minutes it takes stand in
RESULTS.md with their commands.
"""

from imvad_jax.methods.rd4ad import RD4ADConfig


def presets() -> dict[str, RD4ADConfig]:
    """The named configurations."""
    return {
        "official": RD4ADConfig(),
        "benchmark": RD4ADConfig(batch_size=8, weight_decay=1e-6, beta1=0.9, wide_embedding=False),
        "cpu": RD4ADConfig(backbone="resnet18", epochs=40, cache_features=True),
        "demo": RD4ADConfig(backbone="efficientnet_lite0", epochs=15),
        "smoke": RD4ADConfig(
            backbone="resnet18",
            image_size=64,
            epochs=5,
            batch_size=4,  # small, for steps enough
            layers=("layer2", "layer3"),  # two stages compile in half the time
            embedding_channels=64,
        ),
    }
