"""What is carried between the steps of a run: what is asked for, and what it is made with."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from imvad_jax import methods
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.data.tiles import Tiling
from imvad_jax.methods.base import Progress
from imvad_jax.progress import silent_progress, tqdm_progress, track, untracked
from imvad_jax.training import hosts
from imvad_jax.training.limit import NO_LIMIT, Limit, limited, limited_track
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a run writes and how it evaluates; nothing here changes the detector."""

    save_predictions: bool = True
    save_heatmaps: bool = True
    full_resolution_metrics: bool = False
    benchmark_pro: bool = False
    brightness_matched: bool = False  # score test images a second time, at the training's mean
    checkpoint_every: int = 0  # epochs; 0: about twenty times a training
    keep_checkpoints: int = 2
    tensorboard: bool = False
    training_loop: str = "auto"  # one of training.loops.LOOPS
    threshold_quantile: float = 0.95
    results_dir: str = ""  # also takes the small result file; empty: none is written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one category, as it is asked for, and where it is written."""

    method: str
    preset: str
    overrides: Mapping[str, str]
    config: methods.DetectorConfig  # what the preset and the overrides name
    dataset: str
    category: str
    run_dir: Path
    data_dir: str | None = None  # None: the decoded cache is used alone
    decoded_dir: str | None = None  # of the decoded cache
    weights: str | None = None  # as given by the flag
    seed: int = 0
    checkpoint: Path | None = None  # a run whose fitted detector is evaluated instead of fitting
    holdout: float = 0.0  # share of the good images that is not fitted on
    may_fold: bool = False  # whether folds are taken where few images would be held out
    tiling: Tiling | None = None  # None: images are looked at whole
    reading: Reading = AS_IS
    needs_test: bool = False  # whether it is an error that there are no test images
    options: Options = Options()
    command: str = ""

    @property
    def detector(self) -> methods.Detector:
        """The unfitted detector."""
        return methods.make(self.method, self.config)

    @property
    def title(self) -> str:
        """How tables call the method."""
        return methods.get(self.method).title

    def as_record(self) -> dict:
        """What a record will say of it, as far as that is known before any image is read."""
        return {
            "method": self.method,
            "title": self.title,
            "preset": self.preset,
            "overrides": dict(self.overrides),
            "config": dataclasses.asdict(self.config),
            "dataset": self.dataset,
            "category": self.category,
            "seed": self.seed,
            "holdout": self.holdout,
            "tile": self.tiling.tile if self.tiling else 0,  # pixels; 0: no tiles
            "overlap": self.tiling.overlap if self.tiling else 0,
            "command": self.command,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a cell is made with: devices, clocks, and whom to tell."""

    parallel: Parallel
    timings: Timings = dataclasses.field(default_factory=Timings)
    log: Callable[[str], object] = print
    limit: Limit = NO_LIMIT

    @property
    def track(self) -> Callable[..., Iterable]:
        """As `progress.track`, on the first host; it keeps within the limit as `progress` does."""
        if not hosts.is_first():
            return untracked
        return limited_track(track, self.limit) if hosts.count() == 1 else track

    def progress(self, tiling: Tiling | None) -> Progress:
        """The progress display of this host: only the first has any; it keeps within the limit."""
        if not hosts.is_first():
            return silent_progress
        shown = functools.partial(tqdm_progress, unit="tiles") if tiling else tqdm_progress
        # Of several hosts none may stop alone; they stop between epochs.
        return limited(shown, self.limit) if hosts.count() == 1 else shown
