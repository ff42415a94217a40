"""Part a: the device, versions, plain products and copies. `python -m ... FILE` writes them."""

import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.benchmarks.suite.files import write_json

SIZES = {"cpu": 2048}  # rows of the products, by platform ...
LARGE = 8192  # ... and of accelerators
COPY_BYTES = {"cpu": 2**28}
LARGE_COPY = 2**30
SECONDS = 0.5  # that a rate is measured for, at least
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu", "numpy", "torch")


def rate(call: Callable[[], object], seconds: float = SECONDS) -> float:
    """Calls per second, results awaited at the end; after one call that is not counted."""
    jax.block_until_ready(call())
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        jax.block_until_ready([call() for _ in range(4)])
        count += 4
    return count / (time.perf_counter() - start)


def precision_in_words(error: float) -> str:
    """What products were computed in, by their error over the size of their values (both as root
    mean squares, of normally distributed numbers): float32, TF32 or bfloat16.

    Rounding both factors to m bits of mantissa gives about .6 * 2^-m: 3e-4 for TF32's 10 stored
    bits (11 with the leading one), 2e-3 for bfloat16's 7.
    """
    return "float32" if error < 2e-5 else "TF32" if error < 8e-4 else "bfloat16"


def product(dtype: str, precision: str | None, size: int, seconds: float = SECONDS) -> dict:
    """FLOP/s of a square product on one device, and how it was computed."""
    keys = jax.random.split(jax.random.key(0), 2)
    one, two = (jax.random.normal(key, (size, size), dtype) for key in keys)
    step = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    found = np.asarray(step(one, two)[:64, :64], np.float64)
    exact = np.asarray(one[:64], np.float64) @ np.asarray(two[:, :64], np.float64)
    error = float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))
    usual = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "dtype": dtype,
        "precision": precision or str(usual or "default"),
        "computed_in": precision_in_words(error) if dtype == "float32" else dtype,
        "error": error,
        "size": size,
        "flops_per_s": 2 * size**3 * rate(lambda: step(one, two), seconds),
    }


def copies(size: int, seconds: float = SECONDS) -> dict:
    """Bytes per second: within the device (read and written bytes both count), to it, and back."""
    host = np.ones(size // 4, np.float32)
    array = jax.device_put(host)
    copied = jax.jit(lambda x: -x)  # a plain copy may be left out by the compiler
    sent = rate(lambda: jax.device_put(host), seconds)

    def fetch():
        return np.asarray(copied(array))  # what was fetched once is kept with the array

    return {
        "bytes": size,
        "device_bytes_per_s": 2 * size * rate(lambda: copied(array), seconds),
        "to_device_bytes_per_s": size * sent,
        "from_device_bytes_per_s": size * rate(fetch, seconds),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def measure(seconds: float = SECONDS, size: int | None = None) -> dict:
    """All of part a, of one device."""
    device = jax.local_devices()[0]
    size = size or SIZES.get(device.platform, LARGE)
    memory = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    chosen = [("float32", None), ("float32", "highest"), ("bfloat16", None)]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "devices": jax.local_device_count(),
        "memory_bytes": memory.get("bytes_limit"),
        "runtime": str(getattr(device.client, "platform_version", "")).splitlines()[:1],
        "versions": versions(),
        "products": [product(dtype, precision, size, seconds) for dtype, precision in chosen],
        "copies": copies(COPY_BYTES.get(device.platform, LARGE_COPY), seconds),
    }


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), measure())
