"""Several hosts: each reads its own part of the images, and the first one writes.

All hosts run the same program and call the same compiled functions in the same order. With one host
every function here is trivial.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from imvad_jax.errors import UserError


def connect(address: str | None, count: int, number: int) -> None:
    """Joins `count` hosts whose first one listens at `address` (`HOST:PORT`).

    To be called before JAX runs anything. One host, and no address: nothing is done.

    Raises:
      UserError: numbers that do not fit, or the hosts do not find each other.
    """
    if count == 1 and not address:
        return
    if count < 1 or not 0 <= number < count:
        raise UserError(
            f"--process_id={number} --num_processes={count}: expected an id from 0 to one less "
            "than the number"
        )
    if not address or ":" not in address:
        raise UserError(
            f"--coordinator_address={address or ''}: expected HOST:PORT of the first process, the "
            f"same for all {count}"
        )
    try:
        jax.distributed.initialize(address, count, number)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--coordinator_address={address}: the {count} processes did not find each other "
            f"({' '.join(str(error).split())[:200]})"
        ) from None


def count() -> int:
    """Number of hosts."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this host writes files and prints messages."""
    return jax.process_index() == 0


def own(total: int) -> np.ndarray:
    """Numbers of this host's part of `total` rows; the parts follow each other."""
    return np.array_split(np.arange(total), count())[jax.process_index()]


def equal_share(total: int) -> np.ndarray:
    """Like `own`, but of equal length on all hosts: the last row fills gaps."""
    length = -(-total // count())
    start = jax.process_index() * length
    return np.minimum(np.arange(start, start + length), total - 1)


def any_of(flag: bool) -> bool:
    """Whether the flag is set on one of the hosts; the same answer on all."""
    return bool(np.any(gather(np.array(flag))))


def gather(tree: Any) -> Any:
    """Host arrays `[hosts, ...]` of every host's `[...]`, on all hosts."""
    if count() == 1:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)
    return multihost_utils.process_allgather(tree)


def gather_parts(parts: list[Any]) -> list[Any]:
    """The parts of all hosts, each of which has equally many and equally large ones."""
    if count() == 1:
        return parts
    gathered = [gather(part) for part in parts]
    return [
        jax.tree.map(lambda leaf, host=host: leaf[host], part)
        for host in range(count())
        for part in gathered
    ]


def wait(reason: str) -> None:
    """Waits until all hosts have reached this call; `reason` must be the same for all."""
    if count() > 1:
        multihost_utils.sync_global_devices(reason)
