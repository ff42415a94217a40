"""Bars count what they should, close, and keep logs short."""

import numpy as np
import pytest

from imvad_jax import progress
from imvad_jax.data.batches import ArrayImages
from tests import notebooks


@pytest.fixture
def bars(monkeypatch):
    """All bars that are made."""
    made = []
    original = progress._bar

    def record(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(progress, "_bar", record)
    return made


def batches():
    return ArrayImages(np.zeros((5, 4, 4, 3), np.uint8)).batches(2)


def test_closes_at_the_total(bars):
    done = progress.tqdm_progress(5, "fit")
    done(3)
    assert not bars[0].disable
    done(2)
    assert bars[0].n == 5
    assert bars[0].disable  # what tqdm calls closed


def test_empty_work_is_done_at_once(bars):
    progress.tqdm_progress(0, "fit")
    assert bars[0].disable


@pytest.mark.parametrize(
    ("label", "unit", "expected"),
    [("fit", None, "images"), ("coreset", None, "picks"), ("fit", "steps", "steps")],
)
def test_units(capsys, label, unit, expected):
    progress.tqdm_progress(1, label, unit=unit)(1)
    assert f"{label}: 1/1 {expected}" in capsys.readouterr().err


def test_track_counts_valid_images_only(bars):
    assert sum(len(batch.valid) for batch in progress.track(batches(), 5, "decode")) == 6
    assert bars[0].n == 5
    assert bars[0].disable


def test_track_closes_on_an_exception(bars):
    def broken():
        yield from batches()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(progress.track(broken(), 50, "decode"))
    assert bars[0].disable


def test_track_closes_when_the_caller_stops(bars):
    iterator = progress.track(batches(), 5, "decode")
    next(iterator)
    iterator.close()
    assert bars[0].disable


def test_logs_stay_short(capsys):
    done = progress.tqdm_progress(1000, "fit")
    for _ in range(1000):
        done(1)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2  # the start and the end
    assert "\r" not in text


NOTEBOOK = """\
import warnings
warnings.simplefilter("error")
from imvad_jax import progress
for label in ("fit", "calibrate"):
    done = progress.tqdm_progress(50, label)
    for _ in range(50):
        done(1)
"""


def test_in_a_notebook_a_work_is_one_line_that_is_updated():
    notebook = notebooks.executed([NOTEBOOK])
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"] * 2  # nothing on stderr
    for output, label in zip(outputs, ("fit", "calibrate")):
        (line,) = output.data["text/plain"].splitlines()
        assert line.startswith(f"{label}: 100%|") and "50/50" in line and len(line) <= 80
