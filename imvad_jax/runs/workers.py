"""Assigns an accelerator to each worker process of a table."""

import os
import subprocess
import sys

from imvad_jax.errors import UserError


def worker_environments(processes: int, num_devices: int) -> list[dict[str, str]]:
    """The environment of each worker process, on top of this process's.

    Args:
      processes: How many; 0: one for each accelerator, or one.
      num_devices: Devices that a worker is told to use; 0: all that it sees.

    Raises:
      UserError: more processes than accelerators, or JAX finds no device.
    """
    if processes == 1 or (num_devices and not processes):
        return [{}]
    platform, count = accelerators()
    if platform == "cpu":
        return [{}] * max(processes, 1)
    if processes > count:
        raise UserError(f"--processes={processes}: there are {count} {platform} devices")
    return environments(platform, count)[: processes or count]


def accelerators() -> tuple[str, int]:
    """Platform and number of the local devices. Asks another process: to ask is to occupy them."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    code = "import jax; d = jax.local_devices(); print('found', d[0].platform, len(d))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        match line.split():
            case ["found", platform, count]:
                return platform, int(count)
    raise UserError(f"JAX finds no device: {' '.join(done.stderr.split())[-300:]}")


def environments(platform: str, count: int) -> list[dict[str, str]]:
    """What each of `count` workers has in its environment to see its own accelerator only."""
    if count == 1:
        return [{}]
    names = {"gpu": "JAX_CUDA_VISIBLE_DEVICES", "cuda": "JAX_CUDA_VISIBLE_DEVICES",
             "rocm": "JAX_ROCM_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_DEVICES"}  # fmt: skip
    single = {"TPU_PROCESS_BOUNDS": "1,1,1", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}
    more = single if platform == "tpu" else {}
    if platform not in names:
        return [{} for _ in range(count)]
    return [{names[platform]: str(number), **more} for number in range(count)]
