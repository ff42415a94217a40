"""The gradient phase: one training step for every trained method, run by one of two loops.

The host loop calls the compiled step once per batch; the device loop is compiled around the same
step (`training/epoch.py`). `training/loops.py` chooses between them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imvad_jax.data.batches import Images, in_memory
from imvad_jax.errors import UserError
from imvad_jax.methods.base import Detector, TrainedConfig
from imvad_jax.ops.collectives import mean_over_devices
from imvad_jax.training import hosts
from imvad_jax.training.epoch import DeviceLoop, HostLoop, compile_loop, on_devices
from imvad_jax.training.features import Features, compute_features
from imvad_jax.training.job import Job, as_float
from imvad_jax.training.loops import DEVICE, choose_loop
from imvad_jax.training.optimizers import make_optimizer
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.transformed import with_transformed_backbone
from imvad_jax.training.watch import Watch

TRAINED = ("params", "batch_stats")


def epoch_steps(count: int, config: TrainedConfig) -> int:
    """Number of steps per epoch with `count` images."""
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


def step_of(detector: Detector) -> Callable:
    """The step `(state, fixed, batch, key, steps in all) -> (state, metrics)` of both loops.

    A batch holds uint8 images, or their cached frozen features.
    """

    def step(state, fixed, batch, key, steps):
        key = jax.random.fold_in(key, state["step"])
        kept = detector.config.cache_features
        method, inputs = ("loss", batch) if kept else ("image_loss", as_float(batch))

        def loss_of(params):
            variables = {**fixed, "params": params, "batch_stats": state["batch_stats"]}
            (loss, metrics), changed = detector.apply(
                variables,
                inputs,
                method=method,
                mutable=["batch_stats"],
                rngs={"noise": key},
            )
            return loss, (metrics, changed.get("batch_stats", {}))

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (metrics, batch_stats)), gradients = gradient(state["params"])
        gradients, batch_stats, metrics = mean_over_devices(
            (gradients, batch_stats, {"loss": loss, **metrics})
        )
        optimizer = make_optimizer(detector.config, steps)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "batch_stats": batch_stats,
            "opt_state": opt_state,
            "step": state["step"] + 1,
        }, metrics

    return step


@functools.lru_cache(maxsize=64)
def training_step(detector: Detector, devices: tuple) -> Callable:
    """The step compiled alone: `step_of`, which donates the state.

    Shared by all categories, which differ in the number of steps.
    """
    split = (False, False, True, False, False)
    return Parallel(devices).compile(step_of(detector), split, donate=(0,), joined=True)


@functools.lru_cache(maxsize=64)
def device_loop(detector: Detector, devices: tuple) -> Callable:
    """The step compiled in a loop (`epoch.compile_loop`), shared as `training_step` is."""
    return compile_loop(step_of(detector), devices)


def fixed_part(variables: dict) -> dict:
    """The variables that training does not change."""
    return {name: value for name, value in variables.items() if name not in TRAINED}


def place_fixed(detector: Detector, variables: dict, parallel: Parallel) -> dict:
    """Copies `fixed_part` to the devices, with transformed kernels of the frozen backbone."""
    fixed = with_transformed_backbone(detector, fixed_part(variables), parallel)
    return parallel.replicate(fixed)


def training_key(seed: int) -> jax.Array:
    """The key from which all random draws of a training are derived."""
    return jax.random.fold_in(jax.random.key(seed), 3)


def init_state(config: TrainedConfig, variables: Mapping, steps: Any) -> dict:
    """The initial state of a training of `steps` steps in all."""
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
      UserError: the loss is not finite, and the last good checkpoint stays; or the loop that the
        job asks for cannot take these images.
      Stopped: the next epoch is not expected to end before the job's limit; what is trained so far
        is saved.
    """
    config, count = detector.config, len(job.images)
    parallel = job.parallel.dividing(config.batch_size)
    loop = choose_loop(job.training_loop, detector, job.images, parallel)
    steps_per_epoch = epoch_steps(count, config)
    steps = np.int32(steps_per_epoch * config.epochs)
    state = init_state(config, variables, steps)
    epoch = 0
    if job.checkpoints:
        epoch, state = job.checkpoints.resume(state)
    state = parallel.replicate(jax.tree.map(jnp.array, state))  # copies: the state is donated
    run = None
    if epoch < config.epochs:
        fixed = place_fixed(detector, variables, parallel)
        run = begin_loop(loop, detector, fixed, job).run
    draws = steps_per_epoch * config.batch_size
    shown = draws if config.steps_per_epoch else count
    done = job.progress((config.epochs - epoch) * shown, "train")
    watch = Watch(job, steps_per_epoch, config.epochs)
    while run and epoch < config.epochs:
        watch.begin(epoch)
        order = epoch_order(job.seed, epoch, count, draws)
        # Each host takes its part of every batch.
        order = order.reshape(steps_per_epoch, hosts.count(), -1)[:, jax.process_index()]
        state, found = run(state, order, watch)
        metrics = {name: float(np.mean(values)) for name, values in found.items()}
        epoch += 1
        if not all(np.isfinite(value) for value in metrics.values()):
            saved = job.checkpoints.latest() if job.checkpoints else 0
            raise UserError(
                f"epoch {epoch}: the loss is not finite ({metrics}); the last good checkpoint is "
                f"of epoch {saved}. Lower --learning_rate or set --gradient_clip=1"
            )
        done(shown)
        job.on_epoch(epoch, metrics)
        stopping = watch.end(epoch)
        if job.checkpoints:
            job.checkpoints.save(epoch, state, last=stopping or epoch == config.epochs)
        if stopping:
            watch.stop(epoch)
    if job.checkpoints:
        job.checkpoints.wait()
    return variables | {name: jax.device_get(state[name]) for name in TRAINED if state[name]}


def begin_loop(loop: str, detector: Detector, fixed: dict, job: Job) -> HostLoop | DeviceLoop:
    """Creates the training loop, `host` or `device`.

    `fixed` lies on the devices of the training already.
    """
    config = detector.config
    parallel = job.parallel.dividing(config.batch_size)
    steps = np.int32(epoch_steps(len(job.images), config) * config.epochs)
    images: Images | Features = job.images
    if config.cache_features:
        images = compute_features(detector, fixed, job)
    key, compiled_for = training_key(job.seed), (detector.compile_key(), tuple(parallel.devices))
    if loop == DEVICE:
        kept = images if isinstance(images, Features) else in_memory(images)
        there = on_devices(kept, parallel)
        given = {"fixed": fixed, "images": there, "key": key, "steps": steps}
        return DeviceLoop(device_loop(*compiled_for), given, parallel, job)
    step = training_step(*compiled_for)
    return HostLoop(
        lambda state, batch: step(state, fixed, batch, key, steps), images, parallel, job
    )
