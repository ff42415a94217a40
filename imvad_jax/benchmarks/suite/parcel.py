"""The parcel: a category at all geometries that the suite needs, in one small file.

The pixels of the first geometry, which does not crop, are stored whole, those of each other one as
their difference to the same crop of the first: nothing where both shrink by the same filter, since
images are resized before they are cropped. Unpacked, they are decoded caches bit for bit.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imvad_jax.archives import DAMAGE, read_arrays
from imvad_jax.data import category, decoded_cache
from imvad_jax.data.batches import ArrayImages, in_memory
from imvad_jax.data.category import CategoryData
from imvad_jax.data.decode import Geometry
from imvad_jax.data.reading import VERSION, Found
from imvad_jax.errors import UserError
from imvad_jax.marks import MARK
from imvad_jax.owned import write_own

SUFFIX = ".parcel.npz"


def filtered(images: np.ndarray) -> np.ndarray:
    """uint8 `[N, H, W, C]` as differences of neighbours (modulo 256), which compress better."""
    found = images.copy()
    if found.shape[-1] == 3:
        found[..., ::2] -= images[..., 1:2]  # red and blue less green
    for axis in (1, 2):
        found = np.diff(found, axis=axis, prepend=np.uint8(0))
    return found


def unfiltered(images: np.ndarray) -> np.ndarray:
    """What `filtered` was given."""
    found = images
    for axis in (2, 1):
        found = np.cumsum(found, axis=axis, dtype=np.uint8)
    if found.shape[-1] == 3:
        found[..., ::2] += found[..., 1:2]
    return found


def pack(directory: str | Path, versions: Sequence[CategoryData], mark: str) -> Path:
    """Writes the parcel of a category; returns its path.

    Args:
      directory: Where to.
      versions: The category at each geometry, with `ArrayImages`; the first one does not crop.
      mark: The fingerprint of its files, 12 hexadecimal digits (`decoded_cache.fingerprint`).

    Raises:
      UserError: something that is no parcel is at its place.
    """
    first = versions[0]
    whole = _pixels(first)
    arrays = {
        "names": np.array([*first.train_names, *first.test_names]),
        "defects": np.array(first.test_defects, dtype=np.str_),
        "pixels": filtered(whole),
    }
    entries = []
    for number, data in enumerate(versions):
        pixels = _pixels(data)
        difference = pixels - _cropped(whole, data.geometry)
        if difference.any():
            if pixels.shape[-1] == 3:
                difference[..., ::2] -= difference[..., 1:2]
            arrays[f"difference{number}"] = difference
        if data.masks is not None:
            arrays[f"masks{number}"] = np.packbits(data.masks)
        entries.append({
            "geometry": dataclasses.asdict(data.geometry), "found": data.found.as_dict()
        })  # fmt: skip
    meta = {
        "mark": MARK, "version": VERSION, "dataset": first.dataset, "category": first.name,
        "files": mark, "train": len(first.train_names), "versions": entries,
    }  # fmt: skip
    path = Path(directory, f"{first.dataset}-{first.name}{SUFFIX}")
    text = np.array(json.dumps(meta))
    write_own(path, lambda file: np.savez_compressed(file, meta=text, **arrays), is_parcel)
    return path


def read_meta(path: str | Path) -> dict:
    """What a parcel says of itself. Raises UserError for another file, or a damaged one."""
    return _load(path, ("meta",))[0]


def is_parcel(path: str | Path) -> bool:
    """Whether a file is a parcel."""
    try:
        read_meta(path)
    except UserError:
        return False
    return True


def find(directory: str | Path, flag: str, geometries: Sequence[Geometry]) -> list[Path]:
    """The parcels in a directory, sorted.

    Raises:
      UserError: there are none, one is damaged, or holds images of other geometries.
    """
    size = geometries[0].size
    paths = sorted(Path(directory).glob("*" + SUFFIX))
    if not paths:
        raise UserError(
            f"{flag}={directory}: no file *{SUFFIX} there; make them by --pack=DIR --data_dir=DIR"
        )
    for path in paths:
        meta = read_meta(path)
        found = meta["versions"][0]["geometry"]["size"]
        if found != size:
            raise UserError(
                f"{flag}={directory}: {path.name} holds {meta['category']} at {found} pixels; "
                f"expected {size}"
            )
        packed = [Geometry(**version["geometry"]) for version in meta["versions"]]
        if packed != list(geometries):
            raise UserError(
                f"{flag}={directory}: {path.name} was made for other presets; make it anew by "
                "--pack"
            )
    return paths


def unpack(path: str | Path, cache_dir: str | Path) -> list[Geometry]:
    """Writes the decoded caches of a parcel, those that are not there; returns their geometries.

    Raises:
      UserError: the file is no parcel, or damaged.
    """
    meta, arrays = _load(path)
    try:
        found = [Geometry(**entry["geometry"]) for entry in meta["versions"]]
        places = [
            decoded_cache.path_of(cache_dir, meta["dataset"], meta["category"], geometry,
                                  meta["files"])
            for geometry in found
        ]  # fmt: skip
        if all(place.is_file() for place in places):
            return found
        whole = unfiltered(arrays["pixels"])
        for number, place in enumerate(places):
            category.write_cache(place, _version(meta, arrays, whole, number), compressed=False)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise damaged(path, error) from None
    return found


def damaged(path: str | Path, error: Exception) -> UserError:
    """What is said of a file that cannot be used."""
    return UserError(f"{path}: not a parcel of imvad suite, or damaged ({error})")


def _version(meta: dict, arrays: dict, whole: np.ndarray, number: int) -> CategoryData:
    entry, split = meta["versions"][number], meta["train"]
    geometry = Geometry(**entry["geometry"])
    pixels = np.ascontiguousarray(_cropped(whole, geometry))
    if (difference := arrays.get(f"difference{number}")) is not None:
        if pixels.shape[-1] == 3:
            difference[..., ::2] += difference[..., 1:2]
        pixels += difference
    masks, names = arrays.get(f"masks{number}"), arrays["names"].tolist()
    if masks is not None:
        shape = (len(pixels) - split, geometry.crop, geometry.crop)
        masks = np.unpackbits(masks, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return CategoryData(
        dataset=meta["dataset"], name=meta["category"], geometry=geometry,
        train=ArrayImages(pixels[:split]), test=ArrayImages(pixels[split:]),
        train_names=names[:split], test_names=names[split:],
        test_defects=arrays["defects"].tolist(), masks=masks, files=None,
        found=Found.from_dict(entry["found"]),
    )  # fmt: skip


def _pixels(data: CategoryData) -> np.ndarray:
    """uint8 `[N, H, W, C]`: grey only where all images are."""
    parts = [in_memory(data.train).images, in_memory(data.test).images]
    channels = max(part.shape[-1] for part in parts)
    return np.concatenate([np.repeat(p, channels // p.shape[-1], axis=-1) for p in parts])


def _cropped(whole: np.ndarray, geometry: Geometry) -> np.ndarray:
    inner = slice(geometry.offset, geometry.offset + geometry.crop)
    return whole[:, inner, inner]


def _load(path: str | Path, only: Sequence[str] | None = None) -> tuple[dict, dict]:
    try:
        arrays = read_arrays(path, only)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["mark"] != MARK or meta["version"] != VERSION:
            raise ValueError(f"version {meta['version']}, expected {VERSION}")
        _ = meta["versions"][0]["geometry"]["size"], meta["category"]
        return meta, arrays
    except (*DAMAGE, IndexError) as error:
        raise damaged(path, error) from None
