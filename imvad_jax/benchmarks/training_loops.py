"""Measures one epoch with the host loop and with the device loop, alternating."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.benchmarks.measure import measure, ratio, summary
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.training import gradient, loops
from imvad_jax.training.job import Job
from imvad_jax.training.watch import Watch

BOTH = (loops.HOST, loops.DEVICE)


def training_loops(subject: Subject) -> dict:
    """Seconds of an epoch by both loops, of its first one (which compiles) apart.

    Each has its own state, which goes on from epoch to epoch; the order is that of the first one.
    `ratio` is the device's seconds over the host's.

    Raises:
      UserError: the images are not in memory.
    """
    config, count = subject.detector.config, len(subject.images)
    parallel = subject.parallel.dividing(config.batch_size)
    per_epoch = gradient.epoch_steps(count, config)
    steps = np.int32(per_epoch * config.epochs)
    order = gradient.epoch_order(subject.seed, 0, count, per_epoch * config.batch_size)
    order = order.reshape(per_epoch, -1)
    job = Job(subject.images, parallel, subject.seed)
    fixed = gradient.place_fixed(subject.detector, subject.variables, parallel)

    def begin(loop):
        loops.choose_loop(loop, subject.detector, subject.images, parallel)
        run = gradient.begin_loop(loop, subject.detector, fixed, job).run
        start = gradient.init_state(config, subject.variables, steps)
        state = parallel.replicate(jax.tree.map(jnp.array, start))  # copies: it is donated
        watch = Watch(job, per_epoch, config.epochs)

        def call(epochs):
            nonlocal state
            for epoch in range(epochs):
                watch.begin(epoch)
                state, _ = run(state, order, watch)
            jax.block_until_ready(state)

        return call

    calls, found = {}, {"steps": per_epoch, "batch_size": config.batch_size, "images": count}
    for loop in BOTH:
        calls[loop] = begin(loop)
        start = time.perf_counter()
        calls[loop](1)
        found[loop] = {"first_s": time.perf_counter() - start}
    samples = measure(calls, subject.options.repeats, subject.options.least_seconds)
    for loop in BOTH:
        found[loop]["epoch_s"] = summary(samples[loop].wall)
    found["ratio"] = ratio(samples, loops.DEVICE, loops.HOST)
    found["bytes_on_a_device"] = loops.bytes_on_device(subject.detector, subject.images)
    return found
