"""One category ready for use: decoded once, cached compressed, or streamed where it is too big."""

import dataclasses
import hashlib
import json
import os
import re
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from imvad_jax.data import layouts
from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.data.decode import Geometry, load_mask, load_whole_mask
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically

CACHE_VERSION = 1
DECODE_BATCH = 32


@dataclasses.dataclass
class CategoryData:
    """The images of one category at one geometry.

    `train` are all good images until `hold_out` divides them. `masks` are bool `[T, H, W]`, `None`
    where the dataset has none; `files` is `None` when only a cache was there. With a `tiling`,
    `train`, `test` and `held_out` are `TiledImages`, and `masks` a list of T arrays `[h, w]` of the
    sizes of the blended maps; names and labels are those of whole images.
    """

    dataset: str
    name: str
    geometry: Geometry
    train: Images | TiledImages
    test: Images | TiledImages
    train_names: list[str]
    test_names: list[str]
    test_defects: list[str]
    masks: np.ndarray | list[np.ndarray] | None
    files: layouts.Category | None
    held_out: Images | TiledImages | None = None  # good images that are not fitted on
    held_out_names: list[str] = dataclasses.field(default_factory=list)
    tiling: Tiling | None = None

    def hold_out(self, share: float, seed: int) -> "CategoryData":
        """The category with a share of its good images (one at least), drawn by `seed`, held out.

        A share of 0 holds none out.

        Raises:
          UserError: a share outside [0, 1), or nothing would be left to fit on.
        """
        if not 0 <= share < 1:
            raise UserError(f"--holdout={share}: expected a share from 0 to below 1")
        if not share:
            return self
        total = len(self.train_names)
        count = max(round(share * total), 1)
        if count >= total:
            raise UserError(
                f"--holdout={share}: {total} good images are too few to hold {count} of them out; "
                "give more, or --holdout=0 (the run then has no threshold)"
            )
        order = np.random.default_rng([seed, total]).permutation(total)
        out, kept = np.sort(order[:count]), np.sort(order[count:])
        return dataclasses.replace(
            self,
            train=self.train.take(kept),
            train_names=[self.train_names[number] for number in kept],
            held_out=self.train.take(out),
            held_out_names=[self.train_names[number] for number in out],
        )

    @property
    def labels(self) -> np.ndarray:
        """1 for defective test images, 0 for good ones: int `[T]`."""
        return np.array([int(d != "good") for d in self.test_defects])


def open_category(
    dataset: str,
    data_dir: str | None,
    name: str,
    geometry: Geometry,
    cache_dir: str | None,
    seed: int = 0,
    max_decoded_bytes: int = 4 * 2**30,
    progress=lambda batches, total, label: batches,
    tiling: Tiling | None = None,
    keep_tiles: bool = False,
) -> CategoryData:
    """Opens a category from its files, through the decoded cache where one is kept.

    With `data_dir` the files are the truth and a cache that does not fit them is made anew.
    Without it the cache in `cache_dir` is used alone. A category whose decoded images exceed
    `max_decoded_bytes` is streamed from its files at every pass and not cached.

    With a `tiling` images are looked at in tiles, cut from the files as they are asked for. Those
    of the good images are decoded once and kept on disk with `keep_tiles`, for a training that
    asks for them in any order.

    Raises:
      UserError: bad files (named), or neither files nor a cache; with a tiling, images smaller than
        a tile, a geometry that crops, or no `data_dir`.
    """
    if tiling:
        return _open_tiled(
            dataset, data_dir, name, geometry, cache_dir, seed, progress, tiling, keep_tiles
        )
    if not data_dir:
        return _load_cache(_find_cache(cache_dir, dataset, name, geometry), geometry, None)
    files = layouts.get(dataset).category(data_dir, name, seed)
    mark = _fingerprint(files)
    path = _cache_path(cache_dir, dataset, name, geometry, mark) if cache_dir else None
    if path and path.is_file():
        return _load_cache(path, geometry, files)
    train = FileImages([s.path for s in files.train], geometry)
    test = FileImages([s.path for s in files.test], geometry)
    size = (len(train) + len(test)) * geometry.crop**2 * 3
    keep = size <= max_decoded_bytes
    data = CategoryData(
        dataset=dataset,
        name=name,
        geometry=geometry,
        train=_decode(train, progress, f"decode {name}/train") if keep else train,
        test=_decode(test, progress, f"decode {name}/test") if keep else test,
        train_names=[s.name for s in files.train],
        test_names=[s.name for s in files.test],
        test_defects=[s.defect for s in files.test],
        masks=_masks(files, geometry),
        files=files,
    )
    if keep and path:
        _write_cache(path, data)
    return data


def check_tiled(data_dir: str | None, geometry: Geometry) -> None:
    """Raises UserError where images cannot be looked at in tiles: a crop, or no files."""
    if not data_dir:
        raise UserError("--tile: whole images are not in the decoded cache; give --data_dir")
    if geometry.crop != geometry.size:
        raise UserError(
            f"--crop_size={geometry.crop}: of tiles nothing may be cropped, or what lies between "
            "them is never looked at; add --crop_size=0"
        )


def _open_tiled(
    dataset, data_dir, name, geometry, cache_dir, seed, progress, tiling, keep_tiles
) -> CategoryData:
    check_tiled(data_dir, geometry)
    files = layouts.get(dataset).category(data_dir, name, seed)
    train = TiledImages.of_files([s.path for s in files.train], tiling, geometry)
    test = TiledImages.of_files([s.path for s in files.test], tiling, geometry)
    if keep_tiles:
        path = None
        if cache_dir:
            stem = _cache_stem(dataset, name, geometry)
            path = Path(cache_dir).expanduser() / (
                f"{stem}tiles-{tiling.tile}-{tiling.overlap}-{_fingerprint(files)}.raw"
            )
        train = train.keep(path, partial(progress, label=f"decode {name}/train"))
    masks = None
    if files.has_masks:
        shapes = (tiling.map_shape(geometry.crop, *size) for size in test.sizes)
        masks = [
            load_whole_mask(sample.mask_paths, sample.path, shape[::-1])
            for sample, shape in zip(files.test, shapes)
        ]
    return CategoryData(
        dataset=dataset,
        name=name,
        geometry=geometry,
        train=train,
        test=test,
        train_names=[s.name for s in files.train],
        test_names=[s.name for s in files.test],
        test_defects=[s.defect for s in files.test],
        masks=masks,
        files=files,
        tiling=tiling,
    )


def _masks(files: layouts.Category, geometry: Geometry) -> np.ndarray | None:
    if not files.has_masks:
        return None
    masks = np.zeros((len(files.test), geometry.crop, geometry.crop), bool)
    for row, sample in zip(masks, files.test):
        row[:] = load_mask(sample.mask_paths, sample.path, geometry)
    return masks


def _decode(images: FileImages, progress, label: str) -> ArrayImages:
    side = images.geometry.crop
    array = np.empty((len(images), side, side, 3), np.uint8)
    if len(images):
        for batch in progress(images.batches(DECODE_BATCH), len(images), label):
            array[batch.index[batch.valid]] = batch.images[batch.valid]
    if (array[..., :1] == array).all():
        array = np.ascontiguousarray(array[..., :1])  # grey: a third of the memory
    return ArrayImages(array)


def _fingerprint(files: layouts.Category) -> str:
    digest = hashlib.sha256()
    for sample in files.train + files.test:
        digest.update(f"{sample.name}|{sample.defect}".encode())
        for path in (sample.path, *sample.mask_paths):
            stat = os.stat(path)
            digest.update(f"|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


def _cache_stem(dataset: str, name: str, geometry: Geometry) -> str:
    return f"{dataset}-{name}-{geometry.size}-{geometry.crop}-"


def _cache_path(cache_dir, dataset, name, geometry, mark) -> Path:
    return Path(cache_dir).expanduser() / f"{_cache_stem(dataset, name, geometry)}{mark}.npz"


def _find_cache(cache_dir, dataset, name, geometry) -> Path:
    if not cache_dir:
        raise UserError("--data_dir is missing, and --cache_dir too: there is nothing to read")
    stem = _cache_stem(dataset, name, geometry)
    found = sorted(Path(cache_dir).expanduser().glob(stem + "*.npz"))
    if len(found) != 1:
        what = f"{len(found)} decoded caches" if found else "no decoded cache"
        raise UserError(
            f"--cache_dir={cache_dir}: {what} named {stem}*.npz; expected one. "
            "Name the dataset by --data_dir, or carry the cache of this category and size here"
        )
    return found[0]


def cached_categories(cache_dir: str | None, dataset: str) -> list[str]:
    """Names of the categories of `dataset` that have a cache, sorted."""
    if not cache_dir:
        return []
    pattern = re.compile(rf"{re.escape(dataset)}-(.+)-\d+-\d+-[0-9a-f]{{12}}\.npz")
    names = (pattern.fullmatch(p.name) for p in Path(cache_dir).expanduser().glob("*.npz"))
    return sorted({match[1] for match in names if match})


def _write_cache(path: Path, data: CategoryData) -> None:
    meta = {"version": CACHE_VERSION, "dataset": data.dataset, "category": data.name,
            "has_masks": data.masks is not None}  # fmt: skip
    arrays = {
        "meta": np.array(json.dumps(meta)),
        "train_images": data.train.images,
        "test_images": data.test.images,
        "train_names": np.array(data.train_names),
        "test_names": np.array(data.test_names, dtype=np.str_),
        "test_defects": np.array(data.test_defects, dtype=np.str_),
    }
    if data.masks is not None:
        arrays["masks"] = np.packbits(data.masks)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def _load_cache(path: Path, geometry: Geometry, files: layouts.Category | None) -> CategoryData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays["meta"]))
        if meta["version"] != CACHE_VERSION:
            raise ValueError(f"version {meta['version']}, expected {CACHE_VERSION}")
        shape = arrays["test_images"].shape[:3]
        masks = None
        if meta["has_masks"]:
            count = int(np.prod(shape))
            masks = np.unpackbits(arrays["masks"], count=count).reshape(shape).astype(bool)
        return CategoryData(
            dataset=meta["dataset"],
            name=meta["category"],
            geometry=geometry,
            train=ArrayImages(arrays["train_images"]),
            test=ArrayImages(arrays["test_images"]),
            train_names=arrays["train_names"].tolist(),
            test_names=arrays["test_names"].tolist(),
            test_defects=arrays["test_defects"].tolist(),
            masks=masks,
            files=files,
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: the decoded cache is damaged ({error}); delete the file to make it anew"
        ) from None
