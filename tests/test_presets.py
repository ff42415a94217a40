"""Presets and the figures that they name."""

import json
from pathlib import Path

import pytest

from imvad_jax import methods, presets
from imvad_jax.reporting import reached

ROOT = Path(__file__).resolve().parents[1]


def test_the_file_in_the_package_is_what_the_results_give():
    assert reached.PATH.read_text() == reached.render(ROOT / "results")


def test_a_preset_names_its_figures_and_its_command():
    rows = presets.reached("patchcore", "cpu")
    (bottle,) = [r for r in rows if r["category"] == "bottle" and not r["overrides"]]
    assert bottle["seeds"] == [0, 1, 2] and 0.9 < bottle["metrics"]["image_auroc"] <= 1
    assert "--method=patchcore" in bottle["command"] and bottle["commits"]
    assert presets.reached("patchcore", "smoke") == []


def test_what_changed_since_is_said(tmp_path):
    path = next((ROOT / "results/mvtec_ad/bottle/padim").glob("*-seed0.json"))
    result = json.loads(path.read_text())
    result.pop("digest", None)  # of the file as it was
    result["config"]["sigma"] = 9.0
    (tmp_path / "a.json").write_text(json.dumps(result))
    (row,) = json.loads(reached.render(tmp_path))["padim"][result["preset"]]
    assert row["changed_since"] == ["sigma"] and row["seeds"] == [0]
    result["preset"] = "gone"
    (tmp_path / "a.json").write_text(json.dumps(result))
    (row,) = json.loads(reached.render(tmp_path))["padim"]["gone"]
    assert row["changed_since"] == ["preset"]


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_has_presets_of_its_own_kind(method):
    found = presets.of(method)
    assert presets.resolve(method, None, {}) == methods.get(method).config()
    assert all(type(config) is methods.get(method).config for config in found.values())
