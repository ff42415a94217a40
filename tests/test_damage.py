"""A byte that is not as it was written is noticed, or nothing that is read depends on it."""

import re
import shutil

import numpy as np
import pytest
from absl import logging

from imvad_jax.errors import UserError
from tests import damage

KINDS = (
    "saved record", "saved variables", "run's record", "run's variables", "run's calibration",
    "run's predictions", "table: metrics", "table: timings", "table: error", "result",
    "training's course", "training's checkpoint", "decoded cache", "kept tiles", "parcel", "suite",
)  # fmt: skip
FLIPS = 64  # over all kinds


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    found = damage.make(tmp_path_factory.mktemp("kinds"))
    assert tuple(found) == KINDS
    return found


def look(kind, copy, random, monkeypatch):
    """`error`, `said` or `equal`: what is made of a changed byte. Anything else fails."""
    said = []
    monkeypatch.setattr(logging, "warning", lambda *text: said.append(text))
    expected = kind.read(kind.top)
    path = damage.changed(kind, copy, random)
    try:
        found = kind.read(copy)
    except UserError as error:
        assert "\n" not in error.text and str(copy) in error.text, error.text
        return "error"
    if damage.same(found, expected):
        return "said" if said else "equal"
    if found is None:  # of a suite, whose steps are measured anew then
        return "said"
    epoch, state = found  # of a training, which goes on from the epoch before
    assert epoch == 1 and damage.same(state, damage.STATE | {"step": np.int32(1)}), path
    assert (copy / "training/2.damaged").is_dir()
    return "said"


def flip(kind, count, seed, tmp_path, monkeypatch):
    """What is made of `count` changed bytes."""
    random = np.random.default_rng(seed)
    found = [look(kind, tmp_path / str(n), random, monkeypatch) for n in range(count)]
    return {name: found.count(name) for name in ("error", "said", "equal")}


@pytest.mark.compiles
@pytest.mark.parametrize("name", KINDS)
def test_a_changed_byte_is_noticed_or_harmless(kinds, name, tmp_path, monkeypatch, record_property):
    number = KINDS.index(name)
    found = flip(kinds[name], FLIPS // len(KINDS), number, tmp_path, monkeypatch)
    record_property("figures", f"{name}: {found}")
    assert found["error"] + found["said"] > 0


def test_a_cut_file_is_noticed(kinds, tmp_path):
    for number, kind in enumerate(kinds.values()):
        copy = tmp_path / str(number)
        shutil.copytree(kind.top, copy)
        place = copy / kind.place.relative_to(kind.top)
        if place.is_dir():
            inside = (path for path in place.rglob("*") if path.is_file())
            place = max(inside, key=lambda path: path.stat().st_size)
        place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
        expected = kind.read(kind.top)
        try:
            found = kind.read(copy)
        except UserError as error:
            assert re.search(re.escape(str(copy)), error.text)
        else:  # made anew, from an epoch before, or to be measured anew
            assert found is None or damage.same(found, expected) or found[0] == 1
