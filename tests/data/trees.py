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


def write_mask(path: Path, size=(40, 40), value: int = 255, start: int = 5) -> None:
    """A mask with a square defect of 15 x 15 pixels; `value` 0 leaves it empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[start : start + 15, start : start + 15] = value
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


def mpdd_tree(root: Path) -> Path:
    """Two categories of MPDD, one with two kinds of defect."""
    mvtec_tree(root, "tubes")
    mvtec_tree(root, "bracket_black")
    write_image(root / "bracket_black" / "test" / "hole" / "000.png", 40)
    write_mask(root / "bracket_black" / "ground_truth" / "hole" / "000_mask.png")
    return root


def btad_tree(root: Path) -> Path:
    """BTAD's suffixes: 01 has .bmp images and .png masks, 02 only .png, 03 only .bmp."""
    for category, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        top = root / category
        for i in range(4):
            write_image(top / "train" / "ok" / f"{i:04}.{image}", i)
        for i in range(2):
            write_image(top / "test" / "ok" / f"{i:04}.{image}", 10 + i)
            write_image(top / "test" / "ko" / f"{i:04}.{image}", 20 + i)
            write_mask(top / "ground_truth" / "ko" / f"{i:04}.{mask}")
    return root


def loco_tree(root: Path, category: str = "pushpins") -> Path:
    """MVTec LOCO: images of 30 x 50; the first logical anomaly has two masks, the others one."""
    top, size = root / category, (30, 50)
    for i in range(4):
        write_image(top / "train" / "good" / f"{i:03}.png", i, size)
    write_image(top / "validation" / "good" / "000.png", 9, size)
    for i in range(2):
        write_image(top / "test" / "good" / f"{i:03}.png", 10 + i, size)
        for kind in ("logical_anomalies", "structural_anomalies"):
            write_image(top / "test" / kind / f"{i:03}.png", 20 + i, size)
            write_mask(top / "ground_truth" / kind / f"{i:03}" / "000.png", size, 243)
    several = top / "ground_truth" / "logical_anomalies" / "000"
    write_mask(several / "001.png", size, 254, start=12)
    return root


def visa_tree(root: Path) -> Path:
    """Two categories of VisA as downloaded, with the split; masks hold the classes 1 and 2."""
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        data, listed = root / category / "Data", f"{category}/Data"
        for i in range(6):
            write_image(data / "Images" / "Normal" / f"{i:04}.JPG", i, (30, 50))
            split = "test" if i in (1, 4) else "train"
            rows.append(f"{category},{split},normal,{listed}/Images/Normal/{i:04}.JPG,")
        for i in range(2):
            write_image(data / "Images" / "Anomaly" / f"{i:03}.JPG", 20 + i, (30, 50))
            write_mask(data / "Masks" / "Anomaly" / f"{i:03}.png", (30, 50), value=1 + i)
            rows.append(
                f"{category},test,anomaly,{listed}/Images/Anomaly/{i:03}.JPG,"
                f"{listed}/Masks/Anomaly/{i:03}.png"
            )
    split = root / "split_csv" / "1cls.csv"
    split.parent.mkdir(exist_ok=True)
    split.write_text("\n".join(rows) + "\n")
    return root


def kolektor_tree(root: Path) -> Path:
    """KolektorSDD: 12 good and 2 defective images, and the two items that only repeat others."""
    for item in ("kos01", "kos02", "kos26", "kos34"):
        for i in range(7):
            write_image(root / item / f"Part{i}.jpg", i, (50, 20), grey=True)
            write_mask(root / item / f"Part{i}_label.bmp", (50, 20), value=255 if i == 3 else 0)
    return root
