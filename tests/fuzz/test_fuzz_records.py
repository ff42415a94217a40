"""Damaged records, caches and predictions, through everything that reads them."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imvad_jax import api
from imvad_jax.marks import is_ours
from imvad_jax.reporting import grid, grid_page, grid_text, report, results
from tests import damage
from tests.fuzz.mutations import EDITS, JSON_EDITS, edited, edited_json, edited_member
from tests.fuzz.trials import Trials, sized

pytestmark = pytest.mark.slow

RECORDS, ARRAYS, TILES = 1500, 700, 300  # files of all kinds together


def _pages(folder):
    """What the programs make of a run."""
    return report.write_report(folder)


def _table(folder):
    """What the programs make of a table, without writing it."""
    found = grid.load_grid(folder)
    grid_page.page_context(found, True)
    grid_text.markdown(found, True)
    return grid_text.tidy_csv(found, True), grid_text.as_json(found)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return damage.make(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def copies(kinds, tmp_path_factory):
    """The folders of `kinds`, which are damaged in place and mended after each file."""
    top = tmp_path_factory.mktemp("damaged")
    found = {}
    for name, kind in kinds.items():
        copy = top / name.replace(":", "").replace("'", "")
        shutil.copytree(kind.top, copy)
        found[name] = copy, copy / kind.place.relative_to(kind.top)
    top, metrics = found["table: metrics"]
    found["table: record"] = top, metrics.with_name("config.json")
    return found


def _readers(kinds):
    """By kind of JSON file, what reads it, given the folder."""
    read = {name: kinds[name].read for name in kinds}
    return {
        "saved record": [read["saved record"], api.load],
        "run's record": [read["run's record"], api.load, _pages],
        "run's calibration": [read["run's calibration"], api.load],
        "table: record": [_table],
        "table: metrics": [read["table: metrics"], _table],
        "table: timings": [read["table: timings"], _table],
        "table: error": [read["table: error"], _table],
        "result": [read["result"], results.render_results],
        "training's course": [read["training's course"]],
        "suite": [read["suite"]],
    }


def test_records(kinds, copies, record_property):
    readers, trials = _readers(kinds), Trials("records")
    good = {name: copies[name][1].read_bytes() for name in readers}
    values = {}
    for name, content in good.items():  # without their digests, which would hide the rest
        values[name] = json.loads(content)
        last = values[name][-1] if isinstance(values[name], list) else values[name]
        last.pop("digest", None)
    trials.time_undamaged(_pages, copies["run's record"][0])

    @sized(RECORDS)
    @given(st.sampled_from(sorted(good)), JSON_EDITS, st.none() | EDITS, st.integers(0, 5))
    def look(name, edits, instead, number):
        top, path = copies[name]
        content = edited(good[name], instead) if instead else edited_json(values[name], edits)
        read = readers[name][number % len(readers[name])]
        try:
            path.write_bytes(content)
            trials.look(read, top, path)
            is_ours(path)  # true or false
        finally:
            path.write_bytes(good[name])

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > RECORDS // 10 and trials.found["loaded"] > RECORDS // 10


@pytest.mark.parametrize(
    "label, names",
    [("caches", ("decoded cache", "parcel")), ("predictions", ("run's predictions",))],
)
def test_archives(label, names, kinds, copies, record_property):
    trials = Trials(label)
    good = {name: copies[name][1].read_bytes() for name in names}
    expected = {name: kinds[name].read(kinds[name].top) for name in names}
    if label == "predictions":
        trials.time_undamaged(_pages, copies["run's predictions"][0])

    @sized(ARRAYS)
    @given(st.sampled_from(names), EDITS, st.none() | st.integers(0, 1000))
    def look(name, edits, member):
        (top, path), content = copies[name], good[name]
        damaged = edited(content, edits) if member is None else edited_member(
            content, member, edits
        )  # fmt: skip
        try:
            path.write_bytes(damaged)
            if name == "run's predictions" and member is not None and member % 16 == 0:
                trials.look(_pages, top, path)
            else:
                found = trials.look(kinds[name].read, top, path)
                # A member that is checked anew is another one, and no damage can be seen.
                assert found is None or member is not None or damage.same(found, expected[name])
            is_ours(path)
        finally:
            path.write_bytes(content)

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > ARRAYS // 10 and trials.found["loaded"] > ARRAYS // 50


def test_tiles(kinds, copies, record_property):
    """Kept tiles are made anew where they are damaged: always loaded."""
    trials, kind, (top, path) = Trials("kept tiles"), kinds["kept tiles"], copies["kept tiles"]
    good = path.read_bytes()
    expected = kind.read(kind.top)

    @sized(TILES)
    @given(EDITS)
    def look(edits):
        content = edited(good, edits)
        path.write_bytes(content)
        found = trials.look(kind.read, top, path)
        # As long as the tiles alone, it is a file of earlier versions, which told no check.
        if len(content) != expected.nbytes:
            assert damage.same(found, expected) and path.read_bytes() == good

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] == 0
