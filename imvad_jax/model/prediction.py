"""What a model says of single pictures, and how it says it of any number in constant memory."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from imvad_jax.audit.ranges import Ranges
from imvad_jax.audit.statistics import numbers_of
from imvad_jax.data.decode import Geometry, Reader
from imvad_jax.data.stream import Decoded, Source, decode_files, picture_batches
from imvad_jax.data.tiled import AHEAD, tile_batches
from imvad_jax.data.tiles import Tiling, assemble
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration
from imvad_jax.model import inputs
from imvad_jax.model.regions import Placement, Region, find_regions
from imvad_jax.training.score import Scorer

Scored = tuple[Decoded, float, np.ndarray | None]


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePrediction:
    """What a model says of one picture.

    Attributes:
      name: The path that was given; of a picture in memory "picture 3".
      score: The method's own score; larger is more anomalous.
      anomaly_map: The method's own values, float32 `[h, w]`; None: an image-only method. It covers
        the part of the picture that the method sees.
      size: Width and height of the picture, pixels.
      remark: What was done to the file to read it; mostly empty.
      outside: The trivial numbers (mean grey, sharpness, ...: docs/audit.md) in which the picture
        lies outside of the range of the good images that the model was fitted on; empty where none
        are known. Of many pictures under the same light a few may.
    """

    name: str
    score: float
    anomaly_map: np.ndarray | None = dataclasses.field(repr=False)
    size: tuple[int, int]
    remark: str
    calibration: Calibration | None = dataclasses.field(repr=False)
    geometry: Geometry = dataclasses.field(repr=False)
    outside: tuple[str, ...] = ()

    @property
    def normalized_score(self) -> float | None:
        """The score from 0 to 1, 0.5 at the threshold; None without a calibration."""
        return self.calibration and float(self.calibration.image.normalize(self.score))

    @property
    def defective(self) -> bool | None:
        """Whether the score lies above the threshold; None without a calibration."""
        return self.calibration and self.score > self.calibration.image.threshold

    @property
    def verdict(self) -> str | None:
        """ "defective" or "good"; None without a calibration."""
        return {True: "defective", False: "good", None: None}[self.defective]

    @functools.cached_property
    def regions(self) -> list[Region] | None:
        """Where the map lies above its threshold, in pixels of the picture, highest peak first.

        None without a calibration or a map.
        """
        scale = self.calibration and self.calibration.pixel
        if scale is None or self.anomaly_map is None:
            return None
        placement = Placement(self.geometry, *self.anomaly_map.shape, *self.size)
        return find_regions(self.anomaly_map, scale, placement)[0]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Pictures of any size, decoded ahead, scored in batches and handed out in order."""

    scorer: Scorer
    geometry: Geometry
    tiling: Tiling | None
    reader: Reader
    calibration: Calibration | None
    batch_size: int = 0  # 0: as the configuration says
    picture_size: int = 0  # longest side of the picture handed out with its score; 0: none
    ranges: Ranges | None = None  # of the good images; with them pictures have `numbers`

    def run(
        self,
        sources: Iterable[Source],
        count: int | None = None,
        on_bad: Callable[[Decoded], None] | None = None,
        names: Sequence[str] = (),
    ) -> Iterator[Scored]:
        """Yields picture, score and map of each readable picture, in order.

        Args:
          sources: Files, or pictures as `data.arrays.as_picture` takes them.
          count: Their number; None: that of the sequence, or unknown.
          on_bad: Takes the pictures that cannot be read; None: they raise.
          names: How they are called where they raise.

        Raises:
          UserError: without `on_bad`, a picture cannot be read; it is named.
        """
        if count is None and hasattr(sources, "__len__"):
            count = len(sources)
        on_bad = on_bad or functools.partial(_refuse, dict(enumerate(names)))
        size = self.scorer.batch_size(self.batch_size)
        side = self.picture_size
        if self.tiling:
            files = decode_files(
                sources, self.geometry, side, AHEAD, tiling=self.tiling, reader=self.reader
            )
            batches = tile_batches(files, self.tiling, self.geometry, size, on_bad)
            yield from assemble(self._tiles(batches), self.tiling)
            return
        # A single picture is not scored as a batch of 32.
        size = self.scorer.batch_size(inputs.small_batch(count, size), count)
        ahead = 0 if count == 1 else size
        files = decode_files(sources, self.geometry, side, ahead, reader=self.reader)
        for found, batch in self.scorer.batches(picture_batches(files, size, on_bad)):
            files = batch.files
            if self.ranges:
                numbers = numbers_of(batch.images[: len(files)])
                files = [file._replace(numbers=own) for file, own in zip(files, numbers)]
            for row, file in enumerate(files):
                yield file, float(found.image[row]), None if found.maps is None else found.maps[row]

    def _tiles(self, batches):
        """Yields picture, its size, number, score and map of each tile of each readable picture."""
        for found, batch in self.scorer.batches(batches):
            for row, (file, number) in enumerate(batch.tiles):
                tile_map = None if found.maps is None else found.maps[row]
                yield file, file.size, number, float(found.image[row]), tile_map

    def predict(self, images: Any, on_bad_image: str) -> ImagePrediction | Iterator:
        """See `Model.predict`."""
        if inputs.is_one(images):
            return next(self._predictions([inputs.expand(images)], 1, None))
        sources, count = inputs.each(images)
        on_bad = {"error": None, "skip": _warn}
        if on_bad_image not in on_bad:
            raise UserError(f"on_bad_image={on_bad_image}: expected error or skip")
        return self._predictions(sources, count, on_bad[on_bad_image])

    def _predictions(self, sources, count, on_bad) -> Iterator[ImagePrediction]:
        names: dict[int, str] = {}
        on_bad = functools.partial(on_bad or _refuse, names)
        for file, score, anomaly_map in self.run(_named(sources, names), count, on_bad):
            yield ImagePrediction(
                names.pop(file.number), score, anomaly_map, file.size, file.remark,
                self.calibration, self.geometry,
                self.ranges.outside(file.numbers) if file.numbers else (),
            )  # fmt: skip


def _named(sources: Iterable[Source], names: dict[int, str]) -> Iterator[Source]:
    """The pictures; `names` takes up by number how each is called."""
    for number, source in enumerate(sources):
        names[number] = inputs.name_of(source, number)
        yield source


def _reason(names: dict[int, str], file: Decoded) -> str:
    return f"{names.pop(file.number)}: {file.error}"


def _refuse(names: dict[int, str], file: Decoded) -> None:
    raise UserError(_reason(names, file))


def _warn(names: dict[int, str], file: Decoded) -> None:
    warnings.warn(f"left out: {_reason(names, file)}", stacklevel=2)
