"""Damaged files of weights: PyTorch's two formats, safetensors, and NumPy's archives."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from tests.backbones.checkpoints import write_legacy, write_zip
from tests.backbones.test_mutated_weights import ARRAYS, read, state
from tests.fuzz.mutations import EDITS, edited, edited_member
from tests.fuzz.trials import Trials, sized

pytestmark = pytest.mark.slow

FILES = 3000
_WRITERS = {
    "zip.pth": lambda path: write_zip(path, state()),
    "legacy.pth": lambda path: write_legacy(path, state()),
    "arrays.npz": lambda path: np.savez_compressed(path, **ARRAYS),
    "arrays.safetensors": lambda path: safetensors.numpy.save_file(ARRAYS, path),
}


def test_weights(tmp_path, record_property):
    good, trials = {}, Trials("weights")
    for name, write in _WRITERS.items():
        write(tmp_path / name)
        good[name] = (tmp_path / name).read_bytes()

    @sized(FILES)
    @given(st.sampled_from(sorted(good)), EDITS, st.none() | st.integers(0, 1000))
    def look(name, edits, member):
        path, content = tmp_path / name, good[name]
        inside = member is not None and content[:2] == b"PK"
        path.write_bytes(
            edited_member(content, member, edits) if inside else edited(content, edits)
        )
        trials.look(read, path, path)

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > FILES // 10 and trials.found["loaded"] > FILES // 20
