"""Compiles functions for several devices, in an order of operations that suits processors.

By default XLA orders a program for processors so that many operations could run at the same time:
all branches of a network, and the gradients of all layers, go on side by side. Devices that share
the cores run them one after the other, and find their data in the cache if each follows what it
uses. XLA calls that order the one of least memory.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imvad_jax.ops.collectives import AXIS

_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@functools.cache
def options(platform: str) -> dict[str, Any] | None:
    """XLA's options for programs on this platform; None for its own choice."""
    if platform != "cpu":
        return None
    zero = jax.device_put(np.int32(0), jax.local_devices(backend=platform)[0])
    try:
        jax.jit(lambda x: x, compiler_options=_ORDER)(zero)
    except jax.errors.JaxRuntimeError as error:
        if "INVALID_ARGUMENT" not in str(error):
            raise
        return None  # XLA renames its options from time to time
    return dict(_ORDER)


def mapped(
    function: Callable, devices: Sequence[Any], split: Sequence[bool], donate: Sequence[int],
    joined: bool,
) -> Callable:  # fmt: skip
    """`function` compiled for all devices, as `Parallel.compile` describes.

    It is `jax.pmap`, which takes no options of XLA. For processors of this host, where one makes a
    difference, it is what `jax.pmap` is made of, with the option.
    """
    found = options(devices[0].platform)
    here = all(device.process_index == jax.process_index() for device in devices)
    if found is None or not here:
        return jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=tuple(0 if own else None for own in split),
            out_axes=None if joined else 0,
            donate_argnums=donate,
            devices=devices,
        )
    mesh = Mesh(np.array(devices), (AXIS,))
    inputs = tuple(PartitionSpec(AXIS) if own else PartitionSpec() for own in split)
    outputs = PartitionSpec() if joined else PartitionSpec(AXIS)

    def on_each(*arguments):
        own = [
            jax.tree.map(lambda leaf: lax.squeeze(leaf, [0]), argument) if part else argument
            for argument, part in zip(arguments, split, strict=True)
        ]
        result = function(*own)
        return result if joined else jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), result)

    on_each.__name__ = getattr(function, "__name__", on_each.__name__)  # as logs and traces name it
    return jax.jit(
        jax.shard_map(on_each, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False),
        donate_argnums=donate,
        in_shardings=tuple(NamedSharding(mesh, spec) for spec in inputs),
        out_shardings=NamedSharding(mesh, outputs),
        compiler_options=found,
    )


def traced(function: Callable, *arguments) -> Any:
    """What a compiled function computes for these arguments, as a jaxpr.

    `jax.make_jaxpr` would trace it as a part of another program, which takes no options of XLA.
    """
    trace = getattr(function, "trace", None)  # jax.pmap has none
    return trace(*arguments).jaxpr if trace else jax.make_jaxpr(function)(*arguments)
