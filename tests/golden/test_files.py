"""The comparison itself: what it refuses, what it calls a difference, and what it records."""

import json

import numpy as np
import pytest

from tests.golden import record
from tests.golden.files import Golden

FAILED = pytest.fail.Exception


@pytest.fixture
def golden(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_FOUND", {})
    arrays = {"map": np.array([1.0, -4.0]), "grad/a": np.ones(2), "grad/b": np.array([0.1, 0])}
    np.savez(tmp_path / "stpm.npz", picks=np.array([3, 1, 2, 0]), **arrays)
    return Golden(tmp_path / "stpm.npz", "stpm")


def test_a_missing_array_names_the_readme_and_what_there_is(golden):
    where = "stpm.npz .see README-frozen-features.md beside it. holds no"
    for name in ("maps", "gradients/"):
        with pytest.raises(FAILED, match=f"{where} '{name}'"):
            golden[name]
    with pytest.raises(FAILED, match="it holds grad, map, picks"):
        golden["maps"]


def test_another_shape_and_other_names_name_the_readme(golden):
    with pytest.raises(FAILED, match=r"README-frozen.*'map'.*has shape \(2,\), expected \(3,\)"):
        golden.check("map", np.zeros(3), golden["map"], 1)
    with pytest.raises(FAILED, match=r"README-frozen.*'gradients': not in both: \['b'\]"):
        golden.check("gradients", {"a": np.ones(2)}, golden["grad/"], 1)


def test_differences_are_of_the_largest_entry_the_worst_array_and_the_share_of_numbers(golden):
    golden.check("map", np.array([1.2, -4.0]), golden["map"], 0.051)
    gradients = {"a": np.ones(2), "b": np.float32([0.1, 0.02])}
    with pytest.raises(AssertionError, match=r"'gradients' differs by 0.2, 0.1 is all.*worst: b"):
        golden.check("gradients", gradients, golden["grad/"], 0.1)
    with pytest.raises(AssertionError, match=r"'picks' differs by 0.5"):
        golden.check("picks", np.array([3, 1, 0, 2]), golden["picks"], 0)
    with pytest.raises(AssertionError, match="'score' differs by nan"):
        golden.check("score", np.array([np.nan, 0]), golden["map"], 1)


def test_what_was_compared_is_written_failed_or_not(golden, tmp_path):
    golden.check("map", np.array([1.2, -4.0]), golden["map"], 0.1)
    with pytest.raises(AssertionError):
        golden.check("map", np.float32([0, -4]), golden["map"], 0.1)
    record.write(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["comparisons"]  # the last of a name
    assert row == {
        "method": "stpm", "quantity": "map", "computed_in": "float32", "difference": 0.25,
        "tolerance": 0.1,
    }  # fmt: skip
    assert found["made_with"]["versions"]["jax"]
