"""A small finished run, made up."""

import numpy as np

HOSTILE = "test/scratch/<script>alert(1)</script> #1.png"


def made_up_predictions(size=32, with_maps=True):
    """Predictions of six images: the good ones score 0, 1, 3, the scratches 2, 4, 5."""
    masks = np.zeros((6, size, size), bool)
    masks[3:, 8:20, 10:26] = True
    maps = np.random.default_rng(0).random((6, size, size)).astype(np.float32) + 3 * masks
    predictions = {
        "path": np.array(["test/good/0.png", "test/good/1.png", "test/good/2.png",
                          HOSTILE, "test/scratch/1.png", "test/scratch/2.png"]),
        "label": np.array([0, 0, 0, 1, 1, 1]),
        "defect": np.array(["good"] * 3 + ["scratch"] * 3),
        "image_score": np.array([0, 1, 3, 2, 4, 5], np.float32),
        "mask": np.packbits(masks),
        "mask_shape": np.array(masks.shape),
    }  # fmt: skip
    return predictions | ({"anomaly_map": maps} if with_maps else {}), masks


def made_up_record(**changes):
    """A config.json."""
    return {
        "method": "padim",
        "title": "PaDiM",
        "preset": "benchmark",
        "overrides": {"sigma": "2.0"},
        "config": {"backbone": "resnet18", "image_size": 256, "crop_size": 224, "sigma": 2.0},
        "dataset": "mvtec_ad",
        "category": "screw",
        "seed": 3,
        "weights": {"source": "resnet18.safetensors", "sha256": "0123456789abcdef" * 4},
        "notes": ["weights & <b>more</b>"],
        "versions": {"jax": "0.10.0"},
        "commit": "abc123",
        "hardware": "a machine",
        "num_devices": 2,
        "train_files": ["train/good/0.png"],
        "command": "python -m experiments.run --method=padim",
    } | changes


METRICS = {
    "image_auroc": 0.7777,
    "image_ap": 1.0,
    "pixel_auroc": 0.98,
    "pixel_ap": None,
    "pixel_pro": 0.9,
}
