"""One process, eight virtual devices: what holds here holds on eight real ones."""

import collections
import gc
import os
import sys
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

from imvad_jax.ops import convolution_rule

jax.config.update("jax_num_cpu_devices", 8)

# Hundreds of tests start programs: to compile their modules anew took a quarter of each start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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


# Compiling is most of what the tests cost. `--no-compilation`, as `make check` has it, leaves out
# the folders in which nearly every test compiles, and elsewhere the tests that are marked
# `compiles`, since they or the programs that they start do. A test that compiles something in this
# process all the same fails and says so.
COMPILING = (
    "backbones", "benchmarks", "experiments", "golden", "layers", "long", "methods", "model", "ops",
    "real", "training",
)  # fmt: skip
_COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration_secs, **_: (
        _COMPILED.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
    )
)


def pytest_addoption(parser):
    parser.addoption(
        "--no-compilation", action="store_true", help="leave out the tests that compile programs"
    )


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--no-compilation") and collection_path.parent == Path(__file__).parent:
        return True if collection_path.name in COMPILING else None
    return None


# What the tests of these folders show does not depend on the form of a convolution, and Winograd
# takes long to compile; tests/ops, tests/golden and tests/real have it.
ANY_FORM = ("methods", "training")
_LEAST_PRODUCTS = convolution_rule.LEAST_PRODUCTS


def _in_any_form(path: Path) -> bool:
    return path.parent.name in ANY_FORM


def pytest_collection_modifyitems(config, items):
    # One switch of forms a worker, and in each part the files with most tests first.
    tests = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (not _in_any_form(item.path), -tests[item.path]))
    if config.getoption("--no-compilation"):
        left_out = [item for item in items if item.get_closest_marker("compiles")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish():
    """Python's collector looks no longer at what was imported, and at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def compiles_nothing(request):
    """With --no-compilation a test that compiled a program fails."""
    _COMPILED.clear()
    yield
    if request.config.getoption("--no-compilation") and _COMPILED:
        pytest.fail(f"it compiled {len(_COMPILED)} programs; mark it `compiles`", pytrace=False)


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
def forms_that_compile_fast(request):
    """Leaves small convolutions to XLA in the folders where the form does not matter."""
    least = 36e6 if _in_any_form(request.path) else _LEAST_PRODUCTS
    if least != convolution_rule.LEAST_PRODUCTS:
        convolution_rule.LEAST_PRODUCTS = least
        jax.clear_caches()  # what was traced before keeps its forms: half a test would have others


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
