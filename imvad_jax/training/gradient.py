"""The gradient phase: one compiled training step and one loop for every trained method."""

import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imvad_jax.errors import UserError
from imvad_jax.methods.base import Detector, TrainedConfig
from imvad_jax.ops.collectives import mean_over_devices
from imvad_jax.training import hosts
from imvad_jax.training.features import compute_features
from imvad_jax.training.job import IN_FLIGHT, Job, as_float
from imvad_jax.training.limit import Pace, in_words
from imvad_jax.training.optimizers import make_optimizer
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.transformed import with_transformed_backbone

TRAINED = ("params", "batch_stats")


def epoch_steps(count: int, config: TrainedConfig) -> int:
    """Steps of an epoch of `count` images."""
    return config.steps_per_epoch or -(-count // config.batch_size)


def epoch_order(seed: int, epoch: int, count: int, size: int) -> np.ndarray:
    """Image numbers of one epoch of `size` draws, a function of (seed, epoch) alone: int `[size]`.

    As many seeded permutations as fit, topped up from their start: every batch is full (padded rows
    would spoil batch statistics), also where there are fewer images than draws.
    """
    rng = np.random.default_rng([seed, epoch])
    passes = max(size // count, 1)
    permutations = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return np.resize(permutations, size)


@functools.lru_cache(maxsize=64)
def training_step(detector: Detector, devices: tuple):
    """The compiled step `(state, fixed, batch, key, steps in all) -> (state, figures)`.

    A batch holds uint8 images, or what `frozen` gave where that is kept. Donates the state. Shared
    by all categories, which differ in the number of steps.
    """

    def step(state, fixed, batch, key, steps):
        key = jax.random.fold_in(key, state["step"])
        kept = detector.config.cache_features
        method, inputs = ("loss", batch) if kept else ("image_loss", as_float(batch))

        def loss_of(params):
            variables = {**fixed, "params": params, "batch_stats": state["batch_stats"]}
            (loss, figures), changed = detector.apply(
                variables,
                inputs,
                method=method,
                mutable=["batch_stats"],
                rngs={"noise": key},
            )
            return loss, (figures, changed.get("batch_stats", {}))

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (figures, batch_stats)), gradients = gradient(state["params"])
        gradients, batch_stats, figures = mean_over_devices(
            (gradients, batch_stats, {"loss": loss, **figures})
        )
        optimizer = make_optimizer(detector.config, steps)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "batch_stats": batch_stats,
            "opt_state": opt_state,
            "step": state["step"] + 1,
        }, figures

    split = (False, False, True, False, False)
    return Parallel(devices).compile(step, split, donate=(0,), joined=True)


def fixed_part(variables: dict) -> dict:
    """The variables that no training changes."""
    return {name: value for name, value in variables.items() if name not in TRAINED}


def training_key(seed: int) -> jax.Array:
    """The key that every random draw of a training comes from."""
    return jax.random.fold_in(jax.random.key(seed), 3)


def init_state(config: TrainedConfig, variables: dict, steps: int | jax.Array) -> dict:
    """What a training of `steps` steps in all carries from step to step, at its start."""
    params = variables["params"]
    return {
        "params": params,
        "batch_stats": variables.get("batch_stats", {}),
        "opt_state": make_optimizer(config, steps).init(params),
        "step": jnp.zeros((), jnp.int32),
    }


def gradient_phase(detector: Detector, variables: dict, job: Job) -> dict:
    """Trains `params` for the configured epochs; resumes from the newest checkpoint of the job.

    Raises:
      UserError: the loss is not finite; the last good checkpoint stays.
      Stopped: the next epoch is not expected to end before the job's limit; what is trained so far
        is saved.
    """
    config, count = detector.config, len(job.images)
    parallel = job.parallel.dividing(config.batch_size)
    steps_per_epoch = epoch_steps(count, config)
    steps = np.int32(steps_per_epoch * config.epochs)
    step = training_step(detector.without_epochs(), tuple(parallel.devices))
    state = init_state(config, variables, steps)
    epoch = 0
    if job.checkpoints and (epoch := job.checkpoints.latest()):
        state = job.checkpoints.restore(epoch, state)
    state = parallel.replicate(jax.tree.map(jnp.array, state))  # copies: the state is donated
    fixed = with_transformed_backbone(detector, fixed_part(variables), parallel)
    fixed = parallel.replicate(fixed)
    key = training_key(job.seed)
    images = job.images
    if config.cache_features and epoch < config.epochs:
        images = compute_features(detector, fixed, job)
    draws = steps_per_epoch * config.batch_size
    shown = draws if config.steps_per_epoch else count
    done = job.progress((config.epochs - epoch) * shown, "train")
    watch = _Watch(job, steps_per_epoch, config.epochs)
    while epoch < config.epochs:
        watch.begin(epoch)
        order = epoch_order(job.seed, epoch, count, draws)
        # Each host takes its part of every batch.
        parts = order.reshape(steps_per_epoch, hosts.count(), -1)[:, jax.process_index()]
        batches = job.timings.wait(images.batches(parts.shape[1], parts.ravel()), "fit")
        state, figures = _run_epoch(
            lambda state, batch: step(state, fixed, parallel.split(batch), key, steps),
            state,
            batches,
            watch,
        )
        epoch += 1
        if not all(np.isfinite(value) for value in figures.values()):
            saved = job.checkpoints.latest() if job.checkpoints else 0
            raise UserError(
                f"epoch {epoch}: the loss is not finite ({figures}); the last good checkpoint is "
                f"of epoch {saved}. Lower --learning_rate or set --gradient_clip=1"
            )
        done(shown)
        job.on_epoch(epoch, figures)
        stopping = watch.end(epoch)
        if job.checkpoints:
            job.checkpoints.save(epoch, state, last=stopping or epoch == config.epochs)
        if stopping:
            watch.stop(epoch)
    if job.checkpoints:
        job.checkpoints.wait()
    return variables | {name: jax.device_get(state[name]) for name in TRAINED if state[name]}


class _Watch:
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

    def step(self) -> None:
        """A step of the epoch is done. Raises Stopped if the epoch cannot end in time."""
        self._pace.add(1)
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


def _run_epoch(step, state, batches, watch: _Watch):
    """One epoch; the host looks at the figures only when it is over."""
    figures, in_flight = [], deque()
    for batch in batches:
        state, found = step(state, batch.images)
        figures.append(found)
        in_flight.append(found["loss"])
        if len(in_flight) > IN_FLIGHT:
            in_flight.popleft().block_until_ready()
            watch.step()
    figures = jax.device_get(figures)
    return state, {k: float(np.mean([f[k] for f in figures])) for k in figures[0]}
