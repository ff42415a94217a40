"""Keeps a training within its limit of time, whichever loop takes its steps."""

from imvad_jax.training import hosts
from imvad_jax.training.job import Job
from imvad_jax.training.limit import Pace, in_words


class Watch:
    """Keeps a training within the limit of its job.

    It counts by its next epoch: expected to take as long as the last one; the first one as long as
    its first steps tell.
    """

    def __init__(self, job: Job, steps: int, epochs: int):
        self._job, self._steps, self._epochs = job, steps, epochs
        self._seconds: float | None = None  # of the last epoch
        self._epoch, self._start, self._pace = 0, 0.0, Pace(steps, job.limit)

    def begin(self, epoch: int) -> None:
        """An epoch begins after `epoch` of them."""
        limit = self._job.limit
        if hosts.count() == 1 and self._seconds is None:
            limit.check(f"epoch {epoch + 1} of {self._epochs}")
        self._epoch, self._start, self._pace = epoch, limit.clock(), Pace(self._steps, limit)

    def step(self, count: int = 1) -> None:
        """So many steps of the epoch are done. Raises Stopped if it cannot end in time."""
        self._pace.add(count)
        limit, rest = self._job.limit, self._pace.rest
        # An epoch that was expected to end in time is not given up as long as there is any.
        known = self._seconds is not None and not limit.ended_by_signal and limit.left > 0
        if hosts.count() > 1 or known or rest is None or limit.fits(rest):
            return
        saved = self._job.checkpoints.latest() if self._job.checkpoints else 0
        raise limit.stop(
            f"stopped within epoch {self._epoch + 1} of {self._epochs}, which needs about "
            f"{in_words(rest)} more; saved is epoch {saved}; the same command goes on from there"
        )

    def end(self, epoch: int) -> bool:
        """Whether the training stops here, after `epoch` epochs."""
        limit = self._job.limit
        self._seconds = limit.clock() - self._start
        late = limit.ended_by_signal or not limit.fits(self._seconds)
        return epoch < self._epochs and hosts.any_of(late)

    def stop(self, epoch: int) -> None:
        """Raises Stopped once everything is on disk."""
        if self._job.checkpoints:
            self._job.checkpoints.wait()
        raise self._job.limit.stop(
            f"stopped after epoch {epoch} of {self._epochs}; the same command goes on"
        )
