"""One process, eight virtual devices: what holds here holds on eight real ones."""

import gc
import os
import tempfile
from pathlib import Path

import jaxlib

# Tests compile more than they compute. Expensive passes would double their time; none at all (level
# 0) makes convolutions ten times as slow. The older emitters compile a quarter faster; jaxlib 0.12
# has them no more, and ends at an unknown flag.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false" * (jaxlib.version.__version_info__ < (0, 11)),
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

# What one process of a run has compiled the others read: the workers, the programs that tests
# start, and this one when it has dropped its programs (below). The directory goes with the process
# that made it, since programs fit one type of machine; whoever names one keeps it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = tempfile.TemporaryDirectory(prefix="imvad_jax_programs_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
)


def pytest_terminal_summary(terminalreporter):
    """Prints what tests have measured, `record_property("figures", text)`, whoever ran them."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "figures":
                terminalreporter.write_line(f"{report.nodeid}\n{text}")


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
