"""Opening a category: batches, the cache, streaming. These tests use TensorFlow's tf.data."""

import os
import subprocess
import sys

import numpy as np
import pytest

from imvad_jax.data.batches import ArrayImages, padded_order
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry, load_image
from imvad_jax.data.decoded_cache import cached_categories
from imvad_jax.errors import UserError
from tests.data.trees import mvtec_tree

GEOMETRY = Geometry(16, 16)


def open_bottle(root, cache, **options):
    return open_category("mvtec_ad", root and str(root), "bottle", GEOMETRY,
                         cache and str(cache), **options)  # fmt: skip


def test_padding():
    assert padded_order(5, 4, None).tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert padded_order(5, 2, [4, 0]).tolist() == [4, 0]


def test_batches_have_one_shape_and_mark_padding():
    images = ArrayImages(np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8, 1))
    batches = list(images.batches(3))
    assert [b.images.shape for b in batches] == [(3, 8, 8, 3)] * 2
    assert batches[1].valid.tolist() == [True, True, False]
    assert batches[1].index.tolist() == [3, 4, -1]
    assert (batches[1].images[2] == 0).all()
    np.testing.assert_array_equal(batches[0].images[1, ..., 2], images.images[1, ..., 0])


@pytest.mark.parametrize("grey", [False, True])
def test_cached_equals_decoded_equals_streamed(tmp_path, grey):
    mvtec_tree(tmp_path / "data", grey=grey)
    decoded = open_bottle(tmp_path / "data", tmp_path / "cache")
    cached = open_bottle(tmp_path / "data", tmp_path / "cache")
    alone = open_bottle(None, tmp_path / "cache")
    streamed = open_bottle(tmp_path / "data", None, max_decoded_bytes=0)
    assert cached.train.images.shape == (6, 16, 16, 1 if grey else 3)
    assert alone.files is None and not isinstance(streamed.train, ArrayImages)
    expected = load_image(decoded.files.train[3].path, GEOMETRY)
    np.testing.assert_array_equal(decoded.train.images[3], expected)
    for other in (cached, alone, streamed):
        assert other.test_names == decoded.test_names
        assert other.labels.tolist() == [0, 0, 1, 1, 1]
        np.testing.assert_array_equal(other.masks, decoded.masks)
        for name in ("train", "test"):
            for one, two in zip(getattr(decoded, name).batches(4), getattr(other, name).batches(4)):
                for a, b in zip(one, two):
                    np.testing.assert_array_equal(a, b)
    assert cached_categories(str(tmp_path / "cache"), "mvtec_ad") == ["bottle"]


def test_changed_file_makes_the_cache_anew(tmp_path):
    mvtec_tree(tmp_path / "data")
    before = open_bottle(tmp_path / "data", tmp_path / "cache")
    changed = tmp_path / "data/bottle/train/good/000.png"
    os.replace(tmp_path / "data/bottle/train/good/001.png", changed)
    after = open_bottle(tmp_path / "data", tmp_path / "cache")
    assert len(after.train) == 5
    np.testing.assert_array_equal(after.train.images[0], before.train.images[1])


def test_truncated_image_is_named_through_tf_data(tmp_path):
    mvtec_tree(tmp_path / "data")
    path = tmp_path / "data/bottle/test/scratch/001.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"scratch/001\.png: not a readable image"):
        open_bottle(tmp_path / "data", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_missing_and_damaged_caches(tmp_path, caplog):
    with pytest.raises(UserError, match="data_dir is missing"):
        open_bottle(None, None)
    with pytest.raises(UserError, match="no decoded cache"):
        open_bottle(None, tmp_path)
    mvtec_tree(tmp_path / "data")
    open_bottle(tmp_path / "data", tmp_path)
    (cache,) = tmp_path.glob("*.npz")
    whole = open_bottle(None, tmp_path)
    cache.write_bytes(cache.read_bytes()[:2000])
    with pytest.raises(UserError, match="cache is damaged .*; pass data_dir"):
        open_bottle(None, tmp_path)
    with caplog.at_level("WARNING"):
        again = open_bottle(tmp_path / "data", tmp_path)
    assert f"{cache}: the decoded cache is damaged" in caplog.text and "is rebuilt" in caplog.text
    np.testing.assert_array_equal(again.train.images, whole.train.images)
    np.testing.assert_array_equal(open_bottle(None, tmp_path).test.images, whole.test.images)


def test_a_cache_needs_no_tensorflow(tmp_path):
    mvtec_tree(tmp_path / "data")
    open_bottle(tmp_path / "data", tmp_path / "cache")
    program = f"""
import sys
sys.modules["tensorflow"] = None
from imvad_jax import methods
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
data = open_category("mvtec_ad", None, "bottle", Geometry(16, 16), {str(tmp_path / "cache")!r})
assert len(list(data.train.batches(4))) == 2
assert not any(name.split(".")[0] == "torch" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
