"""Digests of arrays and of JSON files."""

import json

import ml_dtypes
import numpy as np
import pytest

from imvad_jax import digests, sealed
from imvad_jax.archives import DAMAGE, read_arrays
from imvad_jax.digests import BLOCK, digest_of_array


def test_type_shape_and_every_value_count():
    arrays = [
        np.zeros(8, np.float32), np.zeros(4, np.float64), np.zeros((2, 4), np.float32),
        np.zeros(8, np.int32), np.zeros((), np.float32), np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.float32), np.zeros(8, ml_dtypes.bfloat16), np.zeros(8, np.float16),
        np.array([True]), np.array([False]), -np.zeros(8, np.float32),
    ]  # fmt: skip
    found = [digest_of_array(array) for array in arrays]
    assert len(set(found)) == len(arrays) and {len(digest) for digest in found} == {32}
    turned = np.arange(6.0).reshape(2, 3).T
    assert digest_of_array(turned) == digest_of_array(np.ascontiguousarray(turned))


def test_one_bit_anywhere_counts():
    random = np.random.default_rng(0)
    data = random.integers(0, 256, 3 * BLOCK + 12345, dtype=np.uint8)
    whole = digest_of_array(data)
    edges = [0, BLOCK - 1, BLOCK, 3 * BLOCK - 1, 3 * BLOCK, len(data) - 1]
    for place in (*edges, *random.integers(0, len(data), 20)):
        bit = np.uint8(1 << random.integers(8))
        data[place] ^= bit
        assert digest_of_array(data) != whole
        data[place] ^= bit
    assert digest_of_array(data) == whole


def test_what_sums_alone_would_miss():
    words = np.random.default_rng(1).integers(0, 2**63, 2 * BLOCK // 8, dtype=np.uint64)
    whole = digest_of_array(words)

    def after(change):
        copy = words.copy()
        change(copy)
        return digest_of_array(copy)

    def swap(a, b):
        def change(copy):
            copy[[a, b]] = copy[[b, a]]

        return change

    for pair in ((0, 1), (3, 3 + digests.COLUMNS), (5, BLOCK // 8 + 5)):
        assert after(swap(*pair)) != whole
    half = len(words) // 2
    assert after(lambda copy: copy.__setitem__(slice(None), np.roll(words, half))) != whole
    assert digest_of_array(np.zeros(BLOCK, np.uint8)) != digest_of_array(np.zeros(BLOCK + 1, "u1"))


def test_the_number_of_threads_does_not_count(monkeypatch):
    data = np.random.default_rng(2).integers(0, 256, 40 * BLOCK + 7, dtype=np.uint8)
    found = set()
    for threads, task in ((1, 1), (3, 5), (4, 16), (4, 1000)):
        monkeypatch.setattr(digests, "_THREADS", threads)
        monkeypatch.setattr(digests, "_TASK", task)
        found.add(digest_of_array(data))
    assert len(found) == 1


def test_a_digest_stays_what_it_is():
    """It is compared with those in files: a change of the rule would refuse all of them."""
    values = np.arange(BLOCK // 4 + 10, dtype=np.int32).reshape(2, -1)
    assert digest_of_array(values) == "7dfa70c6c314a728ec0e488910111661"
    assert sealed.sealed({"a": [1, 2.5, None, "ä"]})["digest"] == "798cb32a6e0c7a73b4d07b0a07e2c941"


@pytest.mark.parametrize("value", [{"a": 1, "b": [1.5, None]}, [{"epoch": 1}, {"epoch": 2}], []])
def test_what_is_sealed_reads_as_it_was(value):
    text = sealed.dumps(value)
    assert sealed.parse(text) == value
    assert sealed.parse(json.dumps(json.loads(text), indent=7)) == value  # formatted anew
    assert sealed.dumps(json.loads(text)) == text  # sealed again
    assert sealed.parse(json.dumps(value)) == value  # of before


def test_damage_and_edits_are_told():
    text = sealed.dumps({"image_size": 64, "notes": ["a"]})
    for changed in (
        text.replace("64", "65"), text.replace('"a"', '"b"'), text.replace("image", "imagf"),
        text.replace('"digest"', '"dihest"'), text.replace('"digest": "', '"digest": "0'),
    ):  # fmt: skip
        assert changed != text
        with pytest.raises(sealed.DamagedError, match="damaged"):
            sealed.parse(changed)
    edited = json.loads(text) | {"image_size": 32}
    del edited["digest"]
    assert sealed.parse(json.dumps(edited))["image_size"] == 32
    with pytest.raises(ValueError):
        sealed.parse("[" * 100_000)


def test_an_array_that_is_read_short_is_damaged(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(6400.0), b=np.zeros((0, 2)))
    assert read_arrays(path)["b"].shape == (0, 2)
    path.write_bytes(path.read_bytes().replace(b"'shape': (6400,)", b"'shape': (3400,)"))
    assert len(np.load(path)["a"]) == 3400  # numpy does not notice
    with pytest.raises(DAMAGE, match="more data than its header declares"):
        read_arrays(path, ("a",))
