"""The worked example of docs/extending.md keeps the contract and is what the page shows."""

import inspect
import sys
from pathlib import Path

import pytest

from imvad_jax import methods
from tests.methods import example_method, example_presets
from tests.methods import test_contract as contract

ROOT = Path(__file__).resolve().parents[2]
NAME = "global_gaussian"


def applies(check) -> bool:
    """Whether a test of the contract is one for all methods, or for statistics methods."""
    marks = getattr(check, "pytestmark", [])
    groups = [m.args[1] for m in marks if m.name == "parametrize" and m.args[0] == "method"]
    return any(group is contract.ALL or group is contract.STATISTICS for group in groups)


CHECKS = [
    check for name, check in vars(contract).items() if name.startswith("test_") and applies(check)
]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The example in the registry, as the page says to register it."""
    example = methods.Method(
        "global Gaussian", example_method.GlobalGaussian, example_method.GlobalGaussianConfig
    )
    monkeypatch.setitem(methods.METHODS, NAME, example)
    monkeypatch.setitem(sys.modules, f"imvad_jax.presets.{NAME}", example_presets)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_example_keeps_the_contract(check, tmp_path):
    given = {"method": NAME, "tmp_path": tmp_path}
    check(**{name: given[name] for name in inspect.signature(check).parameters})


def test_the_whole_contract_is_called():
    assert len(CHECKS) >= 10


@pytest.mark.parametrize("file", ["example_method.py", "example_presets.py"])
def test_the_page_shows_the_example_as_it_is(file):
    code = (ROOT / "tests" / "methods" / file).read_text()
    assert f"```python\n{code}```\n" in (ROOT / "docs" / "extending.md").read_text()
