"""Scores images, whole or in tiles, with a fitted detector: one program for all batches."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from imvad_jax.data.batches import Images
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import assemble
from imvad_jax.methods.base import Detector, Prediction, Progress
from imvad_jax.ops import rows
from imvad_jax.progress import silent_progress
from imvad_jax.training import hosts
from imvad_jax.training.job import in_flight
from imvad_jax.training.maps import opened
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings
from imvad_jax.training.transformed import merged, shared_outputs, with_transformed


class WithImages(Protocol):
    """A batch: anything with uint8 `[B, H, W, 3]`."""

    @property
    def images(self) -> np.ndarray: ...


B = TypeVar("B", bound=WithImages)  # a kind of batch


class Scores(NamedTuple):
    """Image scores float32 `[N]`; maps float32 `[N, H, W]`, or None for image-only methods.

    Of images looked at in tiles, the maps are a list of N arrays `[h, w]` of different sizes.
    """

    image: np.ndarray
    maps: np.ndarray | list[np.ndarray] | None

    def __repr__(self) -> str:
        count = len(self.image)
        said = [f"{count} image{'s' * (count != 1)}"]
        if count:
            said.append(f"scores {self.image.min():.6g} to {self.image.max():.6g}")
        if isinstance(self.maps, np.ndarray):
            said.append(f"maps {' x '.join(map(str, self.maps.shape[1:]))}")
        else:
            said.append("no maps" if self.maps is None else "maps of tiled pictures")
        return f"Scores({', '.join(said)})"


@functools.lru_cache(maxsize=64)
def scoring_step(detector: Detector, devices: tuple, by_rows: bool = False):
    """The compiled scoring function `(*placed variables, uint8 images) -> Prediction`.

    Its first arguments are what `place` gives. `by_rows`: every device is given all images
    (`Parallel.repeat`) and computes some of their rows; the prediction has no device axis, and
    there are always parts, if empty ones.
    """

    def step(variables, images):
        sharing = rows.shared() if by_rows else contextlib.nullcontext()
        with sharing, opened(images) as images:
            return detector.apply(variables, images)

    def step_of_parts(variables, parts, images):
        return step(merged(variables, parts), images)

    compiled = functools.partial(Parallel(devices).compile, joined=by_rows)
    if detector.sharded or by_rows:
        return compiled(step_of_parts, split=(False, True, True))
    return compiled(step, split=(False, True))


def place(
    detector: Detector, variables: dict, parallel: Parallel, without: Sequence[str] = ()
) -> tuple[dict, ...]:
    """The variables on the devices: those that each holds and, where there are any, those of which
    each holds a part, as `merged` takes them. Arrays of the memory named in `without` are left out.
    """
    variables = with_transformed(detector, variables, parallel)
    return _placed(detector, variables, parallel, without)


def _placed(
    detector: Detector, variables: dict, parallel: Parallel, without: Sequence[str] = ()
) -> tuple[dict, ...]:
    """As `place`, of these variables alone."""
    names = detector.sharded
    if not names and not without:
        return (parallel.replicate(variables),)
    memory = variables["memory"]
    rest = {name: value for name, value in memory.items() if name not in (*names, *without)}
    parts = {"memory": {name: parallel.shard(memory[name]) for name in names}}
    rest = parallel.replicate(variables | {"memory": rest})
    return (rest, parts) if names else (rest,)


class Scorer:
    """A fitted detector on its devices: what was fitted is put there once, for all that is scored.

    Of several hosts each scores on its own devices. Batches are split over the devices image by
    image, but where `Parallel.shares_rows` of so few images, and the network allows it, row by row.
    """

    def __init__(self, detector: Detector, variables: Mapping, parallel: Parallel):
        self.parallel = parallel.here()
        self._detector, self._variables = detector, dict(variables)
        self._default = detector.config.batch_size

    @functools.cached_property
    def _step(self):
        return self._compiled(by_rows=False)

    def _compiled(self, by_rows: bool):
        return scoring_step(self._detector.compile_key(), tuple(self.parallel.devices), by_rows)

    @functools.cached_property
    def _common(self) -> tuple[dict, ...]:
        """What both ways to split the work have in common on the devices."""
        names = self._detector.of_positions
        return place(self._detector, self._variables, self.parallel, names)

    def _of_positions(self, put: Callable[[Any], Any]) -> dict:
        return {name: put(self._variables["memory"][name]) for name in self._detector.of_positions}

    @functools.cached_property
    def _placed(self) -> tuple[dict, ...]:
        whole, *parts = self._common
        if self._detector.of_positions:
            found = self._of_positions(self.parallel.replicate)
            whole = whole | {"memory": whole["memory"] | found}
        return whole, *parts

    @functools.cached_property
    def _by_rows(self) -> tuple[Callable, tuple[dict, ...]] | None:
        """Step and placed variables of the work split by rows; None where it cannot be."""
        if not self._detector.by_rows:
            return None
        whole, *others = self._common
        split = "__call__" if self._detector.all_by_rows else "features"
        parts = shared_outputs(self._detector, self._variables, self.parallel, split)
        memory = {"memory": self._of_positions(self.parallel.shard)}
        for found in (memory, *others):
            parts = merged(parts, found)
        placed = (whole, parts)
        step, size = self._compiled(by_rows=True), self._detector.config.input_size
        image = jax.ShapeDtypeStruct((self.parallel.count, 1, size, size, 3), np.uint8)
        try:  # of the other numbers of images the rows are the same
            jax.eval_shape(step, *placed, image)
        except rows.Indivisible:
            return None
        return step, placed

    def batch_size(self, wanted: int = 0, count: int | None = None) -> int:
        """Images per batch, a multiple of the number of devices; 0: as the configuration says.

        Where `count`, the number of all images, is known and so small that the devices share the
        rows of each, it is that number.
        """
        if count and self.parallel.shares_rows(count, self._detector.all_by_rows) and self._by_rows:
            return count
        return self.parallel.batch_size(wanted or self._default)

    def _whole(self, images: np.ndarray) -> bool:
        """Whether a batch is split image by image: `batch_size` gives others for rows alone."""
        return len(images) % self.parallel.count == 0

    def _dispatch(self, images: np.ndarray) -> Prediction:
        if self._whole(images):
            return self._step(*self._placed, self.parallel.split(images))
        assert self._by_rows  # else `batch_size` gives none of this number
        step, placed = self._by_rows
        return step(*placed, self.parallel.repeat(images))

    def batches(self, batches: Iterable[B]) -> Iterator[tuple[Scores, B]]:
        """Scores batches as they come, in order; each is given back with the scores of all rows.

        Two batches are in flight: while one is computed the next is read and the last one handed
        out.

        Args:
          batches: Anything with `images`, uint8 `[B, H, W, 3]`, always of one shape; B as
            `batch_size` gave it.
        """
        for found, batch in in_flight(lambda batch: self._dispatch(batch.images), batches):
            join = self.parallel.join if self._whole(batch.images) else np.asarray
            score, maps = found
            yield Scores(join(score), None if maps is None else join(maps)), batch

    def score(
        self,
        images: Images | TiledImages,
        batch_size: int = 0,
        progress: Progress = silent_progress,
        timings: Timings | None = None,
    ) -> Scores:
        """Scores all images, in order; of several hosts each its share, and all get the whole.

        Images in tiles are scored by one host; the score of an image is that of its highest tile.

        Raises:
          UserError: an image cannot be read; it is named.
        """
        timings = timings or Timings()
        if isinstance(images, TiledImages):
            batches = timings.wait(images.batches(self.batch_size(batch_size)), "score")
            return _whole_scores(self.batches(batches), images, progress(len(images), "score"))
        order = hosts.equal_share(len(images))
        batch_size = self.batch_size(batch_size, len(order))
        done = progress(len(order), "score")
        scores = np.zeros(len(order), np.float32)
        maps = None
        finished = 0
        batches = timings.wait(images.batches(batch_size, order), "score")
        for found, batch in self.batches(batches):
            rows = slice(finished, finished + int(batch.valid.sum()))
            finished = rows.stop
            scores[rows] = found.image[batch.valid]
            if isinstance(found.maps, np.ndarray):
                if maps is None:
                    maps = np.zeros((len(order), *found.maps.shape[1:]), np.float32)
                maps[rows] = found.maps[batch.valid]
            done(rows.stop - rows.start)
        return jax.tree.map(
            lambda rows: hosts.gather(rows).reshape(-1, *rows.shape[1:])[: len(images)],
            Scores(scores, maps),
        )


class MapScorer(Scorer):
    """A scorer of images whose maps are known, so that no kernel of the backbone is made ready."""

    @functools.cached_property
    def _common(self):
        names = self._detector.of_positions
        return _placed(self._detector, self._variables, self.parallel, names)

    def batch_size(self, wanted=0, count=None):
        return self.parallel.batch_size(wanted or self._default)

    def _whole(self, images):
        return True


def score(
    detector: Detector,
    variables: Mapping,
    images: Images | TiledImages,
    parallel: Parallel,
    batch_size: int = 0,
    *,
    progress: Progress = silent_progress,
    timings: Timings | None = None,
) -> Scores:
    """Scores all images once, as `Scorer.score`; the variables are put on the devices for it."""
    return Scorer(detector, variables, parallel).score(images, batch_size, progress, timings)


def _whole_scores(found, images: TiledImages, done) -> Scores:
    """The scores of whole images from those of the batches of their tiles, in order."""

    def tiles():
        for scores, batch in found:
            files, numbers = images.locate(batch.index[batch.valid])
            for row, (file, number) in enumerate(zip(files, numbers)):
                tile_map = None if scores.maps is None else scores.maps[row]
                yield file, images.sizes[file], number, scores.image[row], tile_map
            done(len(files))

    scores, maps = [], []
    for _, best, whole_map in assemble(tiles(), images.tiling):
        scores.append(best)
        if whole_map is not None:
            maps.append(whole_map)
    return Scores(np.array(scores, np.float32), maps or None)
