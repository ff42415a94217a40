"""Presets of DRAEM (Zavrtanik et al., 2021); all report the last epoch.

The official setting, for a GPU; `--texture_dir` names a folder of the Describable Textures Dataset
(without it the textures are drawn by the program, which the run's record says):

    imvad run --method=draem --preset=official --dataset=mvtec_ad --data_dir=DIR \\
        --category=screw --texture_dir=DTD/images --workdir=RUN

It sharpens textures by factors of 0 to 2, as the official code does, and so does `benchmark`; the
others go to 3.

`benchmark` has the epochs, batches and weight decay of the published table, but not the errors of
its code, which repairs towards the image with the anomaly and divides the input by 255 twice while
training (once while scoring).

`cpu` has an eighth of the reconstructive width, a quarter of the discriminative, and half the
pixels. It trains on a twenty-third of the official number of images. Half of its anomalies are
parts of the image itself in the wrong place, which the paper has not: with them more of
bottle's breaks are found. On screw, whose good test images are darker than the training's, they
do not help (BUILD_NOTES.md).

`demo` shows that the program runs: with the 60 good images of a drawn part the training is too
short for its image scores to be trusted; 200 of the cloth are enough (`make test-long`).
"""

from imvad_jax.methods.draem import DRAEMConfig


def presets() -> dict[str, DRAEMConfig]:
    """The named configurations."""
    return {
        "official": DRAEMConfig(texture_sharpness=2.0),
        "benchmark": DRAEMConfig(
            epochs=50, batch_size=16, weight_decay=3e-5, texture_sharpness=2.0
        ),
        "cpu": DRAEMConfig(
            image_size=128,
            epochs=30,
            learning_rate=1e-3,
            reconstructive_widths=(16, 32, 64, 128, 128),
            discriminative_widths=(16, 32, 64, 128, 128, 128),
            own_textures=0.5,
            score_window=11,  # as large a part of the image as officially
        ),
        "demo": DRAEMConfig(
            image_size=64,
            epochs=108,
            batch_size=4,
            learning_rate=3e-3,
            reconstructive_widths=(8, 16, 32, 64),
            discriminative_widths=(16, 32, 64, 64),
            score_window=5,
        ),
        "smoke": DRAEMConfig(
            image_size=64,
            epochs=15,
            batch_size=4,  # small, for steps enough
            learning_rate=5e-3,
            reconstructive_widths=(8, 16),  # two levels compile in half the time
            discriminative_widths=(8, 16),
        ),
    }
