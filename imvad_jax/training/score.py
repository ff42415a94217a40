"""Scores images, whole or in tiles, with a fitted detector: one program for all batches."""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from imvad_jax.data.batches import Images
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import assemble
from imvad_jax.methods.base import Detector, Progress
from imvad_jax.progress import silent_progress
from imvad_jax.training import hosts
from imvad_jax.training.job import as_float, in_flight
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings
from imvad_jax.training.transformed import with_transformed

B = TypeVar("B")  # a kind of batch


class Scores(NamedTuple):
    """Image scores float32 `[N]`; maps float32 `[N, H, W]`, or None for image-only methods.

    Of images looked at in tiles, the maps are a list of N arrays `[h, w]` of different sizes.
    """

    image: np.ndarray
    maps: np.ndarray | list[np.ndarray] | None


@functools.lru_cache(maxsize=64)
def scoring_step(detector: Detector, devices: tuple):
    """The compiled scoring function `(*placed variables, uint8 images) -> Prediction`.

    Its first arguments are what `place` gives.
    """

    def step(variables, images):
        return detector.apply(variables, as_float(images))

    def step_of_parts(variables, parts, images):
        return step(variables | {"memory": variables["memory"] | parts}, images)

    if detector.shared_out:
        return Parallel(devices).compile(step_of_parts, split=(False, True, True))
    return Parallel(devices).compile(step, split=(False, True))


def place(detector: Detector, variables: dict, parallel: Parallel) -> tuple[dict, ...]:
    """The variables on the devices: those that each holds and, where there are any, those arrays of
    the memory of which each holds a part."""
    variables = with_transformed(detector, variables, parallel)
    names = detector.shared_out
    if not names:
        return (parallel.replicate(variables),)
    memory = variables["memory"]
    rest = {name: value for name, value in memory.items() if name not in names}
    parts = {name: parallel.share_out(memory[name]) for name in names}
    return parallel.replicate(variables | {"memory": rest}), parts


class Scorer:
    """A fitted detector on its devices: what was fitted is put there once, for all that is scored.

    Of several hosts each scores on its own devices.
    """

    def __init__(self, detector: Detector, variables: dict, parallel: Parallel):
        self.parallel = parallel.here()
        self._default = detector.config.batch_size
        self._step = scoring_step(detector.without_epochs(), tuple(self.parallel.devices))
        self._placed = place(detector, variables, self.parallel)

    def batch_size(self, wanted: int = 0) -> int:
        """Images a batch, a multiple of the number of devices; 0: as the configuration says."""
        return self.parallel.batch_size(wanted or self._default)

    def batches(self, batches: Iterable[B]) -> Iterator[tuple[Scores, B]]:
        """Scores batches as they come, in order; each is given back with the scores of all rows.

        Two batches are in flight: while one is computed the next is read and the last one handed
        out.

        Args:
          batches: Anything with `images`, uint8 `[B, H, W, 3]`, always of one shape; B a multiple
            of the number of devices.
        """
        join = self.parallel.join
        for (score, maps), batch in in_flight(
            lambda batch: self._step(*self._placed, self.parallel.split(batch.images)), batches
        ):
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
        batch_size = self.batch_size(batch_size)
        if isinstance(images, TiledImages):
            batches = timings.wait(images.batches(batch_size), "score")
            return _whole_scores(self.batches(batches), images, progress(len(images), "score"))
        order = hosts.equal_share(len(images))
        done = progress(len(order), "score")
        scores = np.zeros(len(order), np.float32)
        maps = None
        finished = 0
        batches = timings.wait(images.batches(batch_size, order), "score")
        for found, batch in self.batches(batches):
            rows = slice(finished, finished + int(batch.valid.sum()))
            finished = rows.stop
            scores[rows] = found.image[batch.valid]
            if found.maps is not None:
                if maps is None:
                    maps = np.zeros((len(order), *found.maps.shape[1:]), np.float32)
                maps[rows] = found.maps[batch.valid]
            done(rows.stop - rows.start)
        return jax.tree.map(
            lambda rows: hosts.gather(rows).reshape(-1, *rows.shape[1:])[: len(images)],
            Scores(scores, maps),
        )


def score(
    detector: Detector,
    variables: dict,
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
