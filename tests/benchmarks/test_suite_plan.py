"""The parts of the suite: their order, their shares, and what their commands ask for."""

from pathlib import Path

import pytest

from imvad_jax import methods, presets
from imvad_jax.benchmarks.suite import plan
from imvad_jax.data.decode import Geometry

INPUTS = plan.Inputs(Path("out/work/cache"), "w.safetensors", Path("out"))
OFFICIAL = plan.SCALES["official"]


def test_parts_come_in_order():
    parts = [step.part for step in plan.steps(OFFICIAL, INPUTS)]
    assert parts == sorted(parts) and set(parts) == set("abcdef")
    names = [step.name for step in plan.steps(OFFICIAL, INPUTS)]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


def test_chosen_parts_alone():
    assert {step.part for step in plan.steps(OFFICIAL, INPUTS, ("c", "e"))} == {"c", "e"}


def test_c_to_f_keep_half_of_the_time():
    ends = plan.ends(540.0)
    whole = 540 - plan.CLOSING
    assert ends["b"] == pytest.approx(whole / 2) and ends["f"] == whole
    assert ends.keys() == plan.PARTS.keys()
    assert list(ends.values()) == sorted(ends.values()) and ends["a"] <= 40


def test_part_a_is_begun_wherever_it_fits():
    assert plan.ends(plan.FIRST + plan.CLOSING)["a"] == plan.FIRST
    assert plan.ends(30.0)["a"] == 30.0 - plan.CLOSING


@pytest.mark.parametrize("preset", plan.SCALES)
def test_geometries_are_those_of_the_presets(preset):
    scale = plan.SCALES[preset]
    named = {name for table in scale.tables for name in table} | set(scale.halved_table)
    used = {
        Geometry.of(presets.resolve(name, scale.preset, {"backbone": plan.BACKBONE}))
        for name in named
    }
    assert used == set(scale.geometries)
    assert scale.geometries[0].crop == scale.geometries[0].size  # the others are cut from it


def test_all_methods_are_timed_with_their_official_networks():
    assert set(OFFICIAL.timed) == set(methods.METHODS)
    timed = [step for step in plan.steps(OFFICIAL, INPUTS) if step.part == "c"]
    for step in timed:
        assert "--preset=official" in step.arguments
        assert not any("--backbone" in text or "--weights" in text for text in step.arguments)


def test_bank_is_one_percent_of_bottle():
    (step,) = (s for s in plan.steps(OFFICIAL, INPUTS) if s.name == "rates-patchcore")
    assert {"--coreset_ratio=0.01", "--num_images=209"} <= set(step.arguments)


def test_fields_that_a_table_is_given_belong_to_its_methods():
    for step in plan.steps(OFFICIAL, INPUTS):
        if step.kind == "table":
            chosen = next(t for t in step.arguments if t.startswith("--methods=")).split("=")[1]
            coreset = any("coreset_ratio" in text for text in step.arguments)
            assert coreset == ("patchcore" in chosen.split(","))


def test_without_pytorch_its_part_is_left_out():
    inputs = plan.Inputs(INPUTS.cache, INPUTS.weights, INPUTS.out, has_torch=False)
    for step in plan.steps(OFFICIAL, inputs):
        assert bool(step.left_out) == (step.part == "d")


@pytest.mark.parametrize("preset", plan.SCALES)
def test_methods_whose_loops_are_timed_see_the_packed_images(preset):
    scale = plan.SCALES[preset]
    for name in scale.looped:
        assert "gradient" in methods.get(name).detector.phases
        assert Geometry.of(presets.resolve(name, scale.preset, {})) == scale.geometries[0]
