"""Tiny datasets in each layout, made by the tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, seed: int, size=(40, 40), grey: bool = False) -> None:
    """A random image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if grey else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, size=(40, 40)) -> None:
    """A mask with a square defect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[5:20, 5:20] = 255
    Image.fromarray(mask).save(path)


def mvtec_tree(root: Path, category: str = "bottle", grey: bool = False, train=6) -> Path:
    """6 training, 2 good and 3 defective test images in MVTec's layout."""
    top = root / category
    for i in range(train):
        write_image(top / "train" / "good" / f"{i:03}.png", i, grey=grey)
    for i in range(2):
        write_image(top / "test" / "good" / f"{i:03}.png", 10 + i, grey=grey)
    for i in range(3):
        write_image(top / "test" / "scratch" / f"{i:03}.png", 20 + i, grey=grey)
        write_mask(top / "ground_truth" / "scratch" / f"{i:03}_mask.png")
    return root


def mtd_tree(root: Path) -> Path:
    """10 free tiles and 2 with a crack, sizes differing."""
    for i in range(10):
        size = (30 + i, 40)
        write_image(root / "MT_Free" / "Imgs" / f"f{i}.jpg", i, size, grey=True)
        Image.fromarray(np.zeros(size, np.uint8)).save(root / "MT_Free" / "Imgs" / f"f{i}.png")
    for i in range(2):
        write_image(root / "MT_Crack" / "Imgs" / f"c{i}.jpg", 50 + i, (33, 41), grey=True)
        write_mask(root / "MT_Crack" / "Imgs" / f"c{i}.png", (33, 41))
    return root
