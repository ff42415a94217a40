"""Scores images with a detector exported as ONNX. Needs onnxruntime, numpy and Pillow.

python score_onnx.py DETECTOR IMAGE_OR_FOLDER ...
"""

import json
import sys
from pathlib import Path

try:
    import numpy as np
    import onnxruntime  # pyright: ignore[reportMissingImports]
    from PIL import Image, ImageOps
except ImportError as error:
    sys.exit(f"{error}: pip install onnxruntime numpy pillow")


def load(path):
    """The detector, uint8 images [B, S, S, 3] -> arrays by name, and its metadata."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["metadata"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}))), metadata


def read(path, metadata):
    """An image as the detector takes it: uint8 [S, S, 3]."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode[0] in "IF":  # deeper than 8 bits: convert("RGB") would cut it off at 255
        white = metadata["input"].get("full_scale") or (1 if image.mode == "F" else 65535)
        values = np.rint(np.asarray(image, np.float64) * 255 / white)
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    by = Image.Resampling[metadata["input"]["resample"].split(",")[0].upper()]
    image = image.convert("RGB").resize(metadata["input"]["resize"], by)
    return np.asarray(image.crop(metadata["input"]["crop"]))


def main(model, *inputs):
    """Prints the score of each image, and the largest value of its map."""
    detect, metadata = load(model)
    batch = metadata["input"]["shape"][0]
    size = batch if isinstance(batch, int) else 1
    for path in (file for name in inputs for file in files(Path(name))):
        found = detect(np.stack([read(path, metadata)] * size))
        print(path, *(f"{name} {np.max(found[name][0]):.4f}" for name in sorted(found)))


def files(path):
    """The file itself, or the images in a folder."""
    if not path.is_dir():
        return [path]
    known = Image.registered_extensions()
    return sorted(p for p in path.iterdir() if p.suffix.lower() in known)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
