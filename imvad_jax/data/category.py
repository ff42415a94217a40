"""One category, ready for use: decoded once and cached, or streamed if it is too large."""

import dataclasses
import os
from functools import partial
from pathlib import Path

import numpy as np
from absl import logging

from imvad_jax.archives import DAMAGE
from imvad_jax.data import decoded_cache, layouts
from imvad_jax.data.batches import ArrayImages, Images, in_memory
from imvad_jax.data.decode import Geometry, Reader
from imvad_jax.data.decoded_cache import fingerprint
from imvad_jax.data.files import bad_images, drop_images, gather_masks
from imvad_jax.data.holdout import draw_held_out
from imvad_jax.data.listing import UNREADABLE
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.reading import AS_IS, Found, Reading, remarks_in_words
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, join_errors
from imvad_jax.files import kept_if_possible

DECODE_BATCH = 32
MAX_DECODED_BYTES = 4 * 2**30  # of a category that is held in memory


@dataclasses.dataclass(repr=False)
class CategoryData:
    """The images of one category at one geometry.

    `train` are all good images until `hold_out` divides them. `masks` are bool `[T, H, W]`, `None`
    where the dataset has none; `files` is `None` when only a cache was there. With a `tiling`,
    `train`, `test` and `held_out` are `TiledImages`, and `masks` a list of T arrays `[h, w]` of the
    sizes of the blended maps; names and labels are those of whole images. `found` says what was
    found when the files were read.
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
    found: Found = Found()  # noqa: RUF009 - it is frozen
    held_out: Images | TiledImages | None = None  # good images that are not fitted on
    held_out_names: list[str] = dataclasses.field(default_factory=list)
    tiling: Tiling | None = None

    def __repr__(self) -> str:
        defective = int(self.labels.sum())
        said = [
            f"{self.dataset} {self.name}",
            f"tiles of {self.tiling.tile} px" if self.tiling else f"{self.geometry.crop} px",
            f"{len(self.train_names)} to fit on",
            f"{len(self.held_out_names)} held out" if self.held_out_names else "",
            f"{len(self.test_names)} to test ({defective} defective)",
            "masks" if self.masks is not None else "no masks",
        ]
        return f"CategoryData({', '.join(filter(None, said))})"

    def hold_out(self, share: float, seed: int) -> "CategoryData":
        """The category with a share of its good images (one at least), drawn by `seed`, held out.

        A share of 0 holds none out.

        Raises:
          UserError: a share outside [0, 1), or nothing would be left to fit on.
        """
        kept, out = draw_held_out(len(self.train_names), share, seed)
        if not len(out):
            return self
        return dataclasses.replace(
            self,
            train=self.train.take(kept),
            train_names=[self.train_names[number] for number in kept],
            held_out=self.train.take(out),
            held_out_names=[self.train_names[number] for number in out],
        )

    @property
    def late_notes(self) -> list[str]:
        """Notes on test images that are decoded while they are scored; read them afterwards."""
        remarks: dict[int, str] = getattr(self.test, "remarks", {})
        return remarks_in_words([(self.test_names[n], remarks[n]) for n in sorted(remarks)])

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
    *,
    seed: int = 0,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
    progress=lambda batches, total, label: batches,
    tiling: Tiling | None = None,
    keep_tiles: bool = False,
    reading: Reading = AS_IS,
) -> CategoryData:
    """Opens a category from its files, through the decoded cache where one is kept.

    With `data_dir` the files are the truth and a cache that does not fit them, or is damaged, is
    made anew.
    Without it the cache in `cache_dir` is used alone. A category whose decoded images exceed
    `max_decoded_bytes` is streamed from its files at every pass and not cached. Where the cache
    cannot be written, one warning says so, and it is done without.

    With a `tiling` images are looked at in tiles, cut from the files as they are asked for. Those
    of the good images are decoded once and kept on disk with `keep_tiles`, for a training that
    asks for them in any order.

    Raises:
      UserError: bad files (all are named), neither files nor a cache, or a damaged cache and no
        files; with a tiling, images smaller than a tile, a geometry that crops, or no `data_dir`.
    """
    if tiling:
        check_tiled(data_dir, geometry)
    elif not data_dir:
        return _load_cache(decoded_cache.find(cache_dir, dataset, name, geometry), geometry, None)
    layout = layouts.get(dataset)
    if reading.on_bad_image == "skip" and layout.published:
        raise UserError(
            "--on_bad_image=skip: only with --dataset=folder; results on a published dataset must "
            "cover all images"
        )
    assert data_dir  # `check_tiled` asks for it, too
    files = layouts.read_category(layout, data_dir, name, seed, reading.recursive)
    mark = fingerprint(files, reading)
    if tiling:
        stem = f"{decoded_cache.stem(dataset, name, geometry)}tiles-{tiling.tile}-{tiling.overlap}-"
        path = Path(cache_dir).expanduser() / f"{stem}{mark}.raw" if cache_dir else None
        kept = path if keep_tiles else None
        return _open_tiled(
            files,
            layout,
            reading,
            geometry,
            tiling,
            keep_tiles=keep_tiles,
            path=kept,
            progress=progress,
        )
    path = decoded_cache.path_of(cache_dir, dataset, name, geometry, mark) if cache_dir else None
    if path and os.path.isfile(path):  # also where its folder may not be read
        try:
            return _load_cache(path, geometry, files)
        except UserError as error:
            logging.warning("%s: the images are available, so it is rebuilt", error.text)
    size = (len(files.train) + len(files.test)) * geometry.crop**2 * 3
    if size > max_decoded_bytes:
        return _open_streamed(files, layout, reading, geometry)
    data = _decode_all(files, layout, reading, geometry, progress)
    if path:
        kept_if_possible(partial(write_cache, path, data))
    return data


def check_tiled(data_dir: str | None, geometry: Geometry) -> None:
    """Raises UserError where images cannot be looked at in tiles: a crop, or no files."""
    if not data_dir:
        raise UserError("--tile: whole images are not in the decoded cache; give --data_dir")
    if geometry.crop != geometry.size:
        raise UserError(
            f"--crop_size={geometry.crop}: tiles cannot be cropped, because the gaps between them "
            "would never be inspected; add --crop_size=0"
        )


def _decode_all(files, layout, reading: Reading, geometry: Geometry, progress) -> CategoryData:
    """All images in memory. Every bad file of the category is named at once."""
    reader = reading.reader([s.path for s in files.train])
    arrays, sources, bad = [], [], []
    for part, samples in (("train", files.train), ("test", files.test)):
        source, errors = FileImages([s.path for s in samples], geometry, reader), {}
        arrays.append(_decode(source, progress, f"decode {files.name}/{part}", errors))
        sources.append(source)
        bad.append(errors)
    masks = gather_masks(files, layout, reading, geometry, skip=bad[1])
    errors = [text for found in bad for _, text in sorted(found.items())]
    if reading.on_bad_image == "skip":
        kept = [np.delete(np.arange(len(array)), list(e)) for array, e in zip(arrays, bad)]
        arrays = [array[numbers] for array, numbers in zip(arrays, kept)]
        remarks = [s.take_remarks(numbers) for s, numbers in zip(sources, kept)]
        files = drop_images(files, *bad)
        masks = masks.take(kept[1])
        errors = []
    else:
        remarks = [source.remarks for source in sources]
    if errors + masks.errors:
        raise UserError(join_errors(errors + masks.errors))
    train, test = (ArrayImages(array, reader) for array in arrays)
    return _category(files, geometry, train, test, masks, reader=reader, remarks=remarks)


def _open_streamed(files, layout, reading: Reading, geometry: Geometry) -> CategoryData:
    """Nothing in memory but the masks."""
    reader = reading.reader([s.path for s in files.train])
    files = _without_bad(files, reading, reader, geometry)
    masks = gather_masks(files, layout, reading, geometry)
    if masks.errors:
        raise UserError(join_errors(masks.errors))
    train, test = (
        FileImages([s.path for s in samples], geometry, reader)
        for samples in (files.train, files.test)
    )
    return _category(files, geometry, train, test, masks, reader=reader, remarks=({}, {}))


def _open_tiled(
    files, layout, reading, geometry, tiling, *, keep_tiles, path, progress
) -> CategoryData:
    reader = reading.reader([s.path for s in files.train])
    files = _without_bad(files, reading, reader, geometry, tiling)
    errors, sources = [], []
    for samples in (files.train, files.test):
        try:
            paths = [s.path for s in samples]
            sources.append(TiledImages.of_files(paths, tiling, geometry, reader))
        except UserError as error:
            errors.append(error.text)
    if errors:
        raise UserError(join_errors(errors))
    train, test = sources
    if keep_tiles:
        train = train.keep(path, partial(progress, label=f"decode {files.name}/train"))
    shapes = [tiling.map_shape(geometry.crop, *size) for size in test.sizes]
    masks = gather_masks(files, layout, reading, geometry, shapes=shapes)
    if masks.errors:
        raise UserError(join_errors(masks.errors))
    data = _category(files, geometry, train, test, masks, reader=reader, remarks=({}, {}))
    return dataclasses.replace(data, tiling=tiling)


def _without_bad(
    files, reading: Reading, reader: Reader, geometry: Geometry, tiling: Tiling | None = None
) -> layouts.Category:
    """The category without unreadable images where they are to be skipped: decodes all once."""
    if reading.on_bad_image != "skip":
        return files
    bad = [
        bad_images([s.path for s in samples], geometry, tiling, reader)
        for samples in (files.train, files.test)
    ]
    return drop_images(files, *bad)


def _category(files, geometry, train, test, masks, *, reader, remarks) -> CategoryData:
    named = [
        (samples[number].name, text)
        for samples, found in zip((files.train, files.test), remarks)
        for number, text in sorted(found.items())
    ]
    found = Found(
        reader=reader,
        mask_rule=masks.rule,
        images=len(files.train) + len(files.test),
        masks=masks.count,
        regions=masks.regions,
        vanished=masks.vanished,
        notes=(*masks.notes, *remarks_in_words(named)),
        not_used=files.not_used,
    )
    return CategoryData(
        dataset=files.dataset,
        name=files.name,
        geometry=geometry,
        train=train,
        test=test,
        train_names=[s.name for s in files.train],
        test_names=[s.name for s in files.test],
        test_defects=[s.defect for s in files.test],
        masks=masks.arrays,
        files=files,
        found=found,
    )


def _decode(images: FileImages, progress, label: str, bad: dict[int, str]) -> np.ndarray:
    side = images.geometry.crop
    array = np.empty((len(images), side, side, 3), np.uint8)
    if len(images):
        for batch in progress(images.batches(DECODE_BATCH, bad=bad), len(images), label):
            array[batch.index[batch.valid]] = batch.images[batch.valid]
    if (array[..., :1] == array).all():
        array = np.ascontiguousarray(array[..., :1])  # grey: a third of the memory
    return array


def write_cache(path: Path, data: CategoryData, compressed: bool = True) -> None:
    """Writes the decoded cache of a category whose images are in memory."""
    meta = {
        "dataset": data.dataset,
        "category": data.name,
        "has_masks": data.masks is not None,
        "found": data.found.as_dict(),
    }
    arrays = {
        "train_images": in_memory(data.train).images,
        "test_images": in_memory(data.test).images,
        "train_names": np.array(data.train_names),
        "test_names": np.array(data.test_names, dtype=np.str_),
        "test_defects": np.array(data.test_defects, dtype=np.str_),
    }
    if data.masks is not None:
        arrays["masks"] = np.packbits(data.masks)
    decoded_cache.write(path, meta, arrays, compressed)


def _load_cache(path: Path, geometry: Geometry, files: layouts.Category | None) -> CategoryData:
    meta, arrays = decoded_cache.load(path)
    try:
        found = Found.from_dict(meta["found"])
        _check_arrays(arrays)
        shape = arrays["test_images"].shape[:3]
        masks = None
        if meta["has_masks"]:
            count = int(np.prod(shape))
            masks = np.unpackbits(arrays["masks"], count=count).reshape(shape).astype(bool)
        test_names = arrays["test_names"].tolist()
        train_names = arrays["train_names"].tolist()
        if files is not None:  # what was skipped when the cache was made is skipped again
            files = dataclasses.replace(
                files,
                train=tuple(s for s in files.train if s.name in set(train_names)),
                test=tuple(s for s in files.test if s.name in set(test_names)),
            )
            # Files that lie beside the images are no part of the fingerprint.
            unreadable = [item for item in found.not_used if item.why == UNREADABLE]
            found = dataclasses.replace(found, not_used=(*files.not_used, *unreadable))
        return CategoryData(
            dataset=meta["dataset"],
            name=meta["category"],
            geometry=geometry,
            train=ArrayImages(arrays["train_images"], found.reader),
            test=ArrayImages(arrays["test_images"], found.reader),
            train_names=train_names,
            test_names=test_names,
            test_defects=arrays["test_defects"].tolist(),
            masks=masks,
            files=files,
            found=found,
        )
    except (*DAMAGE, LookupError, AttributeError) as error:
        raise decoded_cache.damaged(path, error) from None


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError for arrays of a cache that no category could have."""
    for part in ("train", "test"):
        images = arrays[f"{part}_images"]
        fits = images.ndim == 4 and images.shape[3] in (1, 3)
        if images.dtype != np.uint8 or not fits:
            raise ValueError(f"{part}_images is {images.dtype} {list(images.shape)}")
    for name in ("train_names", "test_names", "test_defects"):
        names, count = arrays[name], len(arrays[f"{name.split('_')[0]}_images"])
        if names.shape != (count,) or (count and names.dtype.kind != "U"):
            raise ValueError(f"{name} is {names.dtype} {list(names.shape)}, expected {count} texts")
