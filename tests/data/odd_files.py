"""Files as they come: odd ones that hold a picture, and bad ones that do not."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 40)  # width, height


def picture(seed: int = 0) -> Image.Image:
    """A smooth grey part with some noise, RGB."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(80, 160, SIZE[0])[None, :, None] + np.zeros((SIZE[1], 1, 3))
    noisy = ramp + rng.normal(0, 3, ramp.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def write_good(folder: Path) -> list[str]:
    """Writes every odd kind that is to be scored; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    image = picture(1)
    grey = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    preview = {"save_all": True, "append_images": [image.resize((24, 20))], "format": "MPO"}
    image.save(folder / "plain.png")
    image.save(folder / "UPPER.JPG", quality=95)
    image.save(folder / "rotated.jpg", exif=exif, quality=95)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.save(folder / "progressive.jpeg", progressive=True, quality=95)
    image.save(folder / "camera with preview.jpg", **preview)
    image.quantize(64).save(folder / "palette.png")
    image.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(grey).save(folder / "grey.bmp")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen bit.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.tif")
    Image.fromarray(grey.astype(np.float32) / 255).save(folder / "float.tiff")
    image.save(folder / "lossless.webp", lossless=True)
    image.save(folder / "Gehäuse 部品 №1.png")
    image.save(folder / "50% [new] & 'best' <b>.png")
    (folder / "deeper" / "still").mkdir(parents=True)
    image.save(folder / "deeper" / "still" / "plain.png")
    os.symlink(folder / "plain.png", folder / "linked.png")
    os.symlink(folder, folder / "deeper" / "circle")  # walked once
    (folder / "notes.txt").write_text("not an image, and not called one")
    (folder / ".hidden.png").write_bytes(b"")
    return sorted(
        path.relative_to(folder).as_posix()
        for top in (folder, folder / "deeper" / "still")
        for path in top.iterdir()
        if path.is_file() and path.name not in ("notes.txt", ".hidden.png")
    )


def write_bad(folder: Path) -> dict[str, str]:
    """Writes every kind of bad file; returns for each name a part of the reason to be given."""
    folder.mkdir(parents=True, exist_ok=True)
    image, reasons = picture(2), {}

    def bad(name: str, reason: str, data: bytes | None = None) -> Path:
        reasons[name] = reason
        if data is not None:
            (folder / name).write_bytes(data)
        return folder / name

    image.save(folder / "whole.png")
    for suffix in ("jpg", "tif", "bmp", "webp"):
        image.save(folder / f"whole.{suffix}")
    for suffix in ("png", "jpg", "tif", "bmp", "webp"):
        data = (folder / f"whole.{suffix}").read_bytes()
        bad(f"truncated.{suffix}", "not a readable image", data[: len(data) // 2])
        (folder / f"whole.{suffix}").unlink()
        if suffix == "png":
            middle = len(data) // 2
            damaged = data[:middle] + bytes(20) + data[middle + 20 :]
            bad("damaged.png", "not a readable image", damaged)
    bad("zero bytes.png", "not a readable image", b"")
    bad("zeros.jpg", "not a readable image", bytes(5000))
    bad("text.png", "not a readable image", b"hello, I am a picture\n")
    bad("page.jpg", "not a readable image", b"<!DOCTYPE html><html></html>")
    bad("bomb.png", "60000 x 60000", _png_header(60000, 60000))
    bad("large.png", "11000 x 11000", _png_header(11000, 11000))
    bad("vector.png", "not a readable image", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (1, 1)).save(bad("one pixel.png", "1 x 1 pixels"))
    Image.new("RGB", (300, 2)).save(bad("sliver.png", "300 x 2 pixels"))
    more = {"save_all": True, "append_images": [picture(3), picture(4)]}
    image.save(bad("animated.png", "expected one"), **more)
    image.save(bad("animated.webp", "expected one"), **more)
    image.save(bad("pages.tif", "several pages; expected one"), **more)
    height = Image.fromarray(np.full((20, 20), 12.5, np.float32))
    height.save(bad("height map.tif", "expected 0 ... 1"))
    os.symlink(folder / "loop.png", bad("loop.png", "symbolic links"))
    os.symlink(folder / "nowhere.png", bad("broken link.png", "a broken link"))
    os.mkfifo(bad("pipe.png", "no regular file"))
    return reasons
