"""Collective operations that also work on a single device."""

from jax import Array, lax

AXIS = "devices"  # the mapped axis of every pmap in the project


def mapped_axis() -> str | None:
    """The name of the mapped axis while tracing under pmap, else None."""
    try:
        lax.axis_size(AXIS)
    except NameError:
        return None
    return AXIS


def mean_over_devices(tree):
    """Returns the mean over all devices; on one device, the tree itself."""
    return lax.pmean(tree, AXIS) if mapped_axis() else tree


def max_over_devices(x: Array) -> Array:
    """Returns the elementwise maximum over all devices; on one device, the array itself."""
    return lax.pmax(x, AXIS) if mapped_axis() else x


def gather_batch(x: Array) -> Array:
    """Gathers the rows of all devices in order, `[devices * B, ...]`; on one, the array itself."""
    return lax.all_gather(x, AXIS, tiled=True) if mapped_axis() else x


def own_minimum(x: Array) -> Array:
    """Returns this device's rows `[B, ...]` of the minimum over devices of `[devices * B, ...]`."""
    if not mapped_axis():
        return x
    own = x.shape[0] // lax.axis_size(AXIS)
    least = lax.pmin(x, AXIS)
    return lax.dynamic_slice_in_dim(least, lax.axis_index(AXIS) * own, own)


def device_number() -> Array | int:
    """Returns the index of this device among those that share the batch; 0 on one device."""
    return lax.axis_index(AXIS) if mapped_axis() else 0
