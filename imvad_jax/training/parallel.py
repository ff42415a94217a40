"""Data parallelism through one helper: one device or several, of one host or more."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imvad_jax.errors import UserError
from imvad_jax.ops.collectives import AXIS
from imvad_jax.training import compiled

# jaxlib's stubs call it a variable.
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]

MOST_SHARED = 4  # images whose rows are split over the devices


class Parallel:
    """The devices that share the work, and the placement of arrays on them.

    On several devices, arrays that are split or kept per device have a leading device axis; on one
    they have none. Of several hosts each handles the arrays of its own devices only.
    """

    def __init__(self, devices: Sequence[Device] | None = None):
        # By host, as the hosts' shares of a batch follow each other.
        self.devices = sorted(devices or jax.devices(), key=lambda device: device.process_index)
        this = jax.process_index()
        self.local = [device for device in self.devices if device.process_index == this]

    @property
    def count(self) -> int:
        """Number of devices of this host."""
        return len(self.local)

    @property
    def alone(self) -> bool:
        """Whether there is one device in all."""
        return len(self.devices) == 1

    def here(self) -> "Parallel":
        """The devices of this host alone."""
        return Parallel(self.local)

    def compile(
        self,
        function: Callable,
        split: Sequence[bool],
        donate: Sequence[int] = (),
        joined: bool = False,
    ) -> Callable:
        """`function` compiled; `split[i]` says whether argument i has its own part a device.

        Outputs are per device. `joined` promises that the function has reduced all of them over
        the devices (what it has not would silently be the first device's).
        """
        if self.alone:
            return jax.jit(function, donate_argnums=donate)
        return compiled.mapped(function, self.devices, split, donate, joined)

    def replicate(self, tree: Any) -> Any:
        """A copy on every device of this host."""
        if self.alone:
            return jax.device_put(tree, self.devices[0])
        mesh = Mesh(np.array(self.local), (AXIS,))
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

    def split(self, tree: Any) -> Any:
        """Arrays `[B, ...]` as `[devices, B / devices, ...]` (unchanged on one device)."""
        if self.alone:
            return tree
        return jax.tree.map(lambda array: array.reshape(self.count, -1, *array.shape[1:]), tree)

    def repeat(self, array: np.ndarray) -> np.ndarray:
        """The array `[devices, ...]`, the same for each device (unchanged on one)."""
        return array if self.alone else np.broadcast_to(array, (self.count, *array.shape))

    def shard(self, array: Any) -> jax.Array:
        """Rows `[N, ...]`, of which each device of this host holds its part `[N / devices, ...]`.

        The last part is filled up with repeated rows where the devices do not divide N.
        """
        if self.alone:
            return jax.device_put(array, self.devices[0])
        array = np.asarray(array)
        rows = -(-len(array) // self.count)
        parts = array[np.arange(rows * self.count) % len(array)]
        parts = parts.reshape(self.count, rows, *array.shape[1:])
        mesh = Mesh(np.array(self.local), (AXIS,))
        return jax.device_put(parts, NamedSharding(mesh, PartitionSpec(AXIS)))

    def join(self, array: jax.Array) -> np.ndarray:
        """The host's copy of a per-device result, devices in order: `[B, ...]`."""
        found = np.asarray(array)
        return found if self.alone else found.reshape(-1, *found.shape[2:])

    def parts(self, tree: Any) -> list[Any]:
        """Per-device values as one pytree a device, each left where it lies.

        On the CPU they are numpy views: taking the device axis off a JAX array copies it, and the
        patches of all training images are too much to hold twice.
        """
        if self.alone:
            return [tree]

        def part(leaf, device):
            shard = next(s for s in leaf.addressable_shards if s.device == device)
            return np.asarray(shard.data)[0] if device.platform == "cpu" else shard.data[0]

        return [jax.tree.map(lambda leaf, d=d: part(leaf, d), tree) for d in self.local]

    def dividing(self, batch_size: int) -> "Parallel":
        """These devices, or as many of each host as divide its share of a training batch evenly.

        Raises:
          UserError: the hosts do not divide the batch.
        """
        hosts: dict[int, list[Device]] = {}
        for device in self.devices:
            hosts.setdefault(device.process_index, []).append(device)
        if batch_size % len(hosts):
            raise UserError(
                f"--batch_size={batch_size}: must be a multiple of the {len(hosts)} processes"
            )
        share = batch_size // len(hosts)
        count = max(n for n in range(1, self.count + 1) if share % n == 0)
        return Parallel([device for devices in hosts.values() for device in devices[:count]])

    def shares_rows(self, images: int, all_of_it: bool) -> bool:
        """Whether so few images are split over the devices by their rows, where networks allow it.

        Only of processors, and where whole images would leave some of them idle; more than one only
        if `all_of_it` is split, not the backbone alone. Measured on two devices (BUILD_NOTES.md).
        """
        on_cpu = self.local[0].platform == "cpu"
        few = images <= (MOST_SHARED if all_of_it else 1)
        return on_cpu and few and images % self.count != 0

    def batch_size(self, wanted: int) -> int:
        """`wanted`, rounded up to a multiple of the number of devices of this host."""
        return -(-wanted // self.count) * self.count


def choose_devices(count: int) -> Parallel:
    """Returns the first `count` devices of every host; 0 means all.

    Raises:
      UserError: More devices are requested than exist.
    """
    local = jax.local_devices()
    if not 0 <= count <= len(local):
        raise UserError(
            f"--num_devices={count}: this machine has {len(local)} {local[0].platform} devices; "
            f"expected 0 (all) to {len(local)}"
        )
    chosen: dict[int, list[Device]] = {}
    for device in jax.devices():
        chosen.setdefault(device.process_index, []).append(device)
    return Parallel([d for devices in chosen.values() for d in devices[: count or len(local)]])


def available_bytes(device: Device) -> int | None:
    """Free memory in bytes, of the accelerator or the machine; None if unknown."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return limit - stats.get("bytes_in_use", 0) if limit else None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
