"""One process, eight virtual devices: what holds here holds on eight real ones."""

import gc
import os
from pathlib import Path

# Tests compile more than they compute. Expensive passes would double their time; none at all (level
# 0) makes convolutions ten times as slow.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Where real data and weights would lie."""
    default = Path(__file__).resolve().parent.parent.parent / "shared"
    return Path(os.environ.get("IMVAD_SHARED", default))


@pytest.fixture(scope="session")
def shared(shared_dir) -> Path:
    """The real data; the test is skipped where it is absent."""
    if not (shared_dir / "data" / "mvtec_ad").is_dir():
        pytest.skip(f"no real data at IMVAD_SHARED={shared_dir}")
    return shared_dir


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Drops compiled programs before the memory mappings that they hold run out.

    Linux gives a process 65,530; beyond them compiling ends in a segmentation fault.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_text().count("\n") > 20_000:
        jax.clear_caches()
        gc.collect()
