"""How images and masks are resized: by the configuration, all the way from file to figure."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvad_jax import api, methods
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry, load_image
from imvad_jax.data.decoded_cache import cached_categories
from imvad_jax.data.mask_arrays import shrink, shrink_whole
from imvad_jax.data.masks import read_mask
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.methods.padim import PaDiMConfig
from imvad_jax.runs import identity
from imvad_jax.training.record import config_of
from tests.data.trees import mvtec_tree, write_image

EXAMPLES = Path(__file__).resolve().parents[2] / "imvad_jax/export/examples"
USUAL, OTHER = Geometry(16, 12), Geometry(16, 12, "lanczos", "nearest")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}


def resized(path, by: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.resize((16, 16), FILTERS[by]))[2:14, 2:14]


@pytest.fixture
def data(tmp_path):
    mvtec_tree(tmp_path / "data")
    for path in (tmp_path / "data/bottle/ground_truth").rglob("*.png"):
        mask = np.zeros((40, 40), np.uint8)
        mask[11:22, 11:22] = 255  # its border falls into the middle of pixels of 16
        Image.fromarray(mask).save(path)
    return tmp_path / "data"


def opened(data, geometry, cache=None, **options):
    return open_category(
        "mvtec_ad", data and str(data), "bottle", geometry, cache and str(cache), **options
    )


@pytest.mark.parametrize("by", FILTERS)
def test_images_are_resized_by_the_filter(tmp_path, by):
    path = tmp_path / "image.png"
    write_image(path, 0)
    found = load_image(str(path), Geometry(16, 12, by))
    np.testing.assert_array_equal(found, resized(path, by))
    assert (resized(path, "lanczos") != resized(path, "bilinear")).any()


def test_masks_are_resized_by_their_rule(data):
    path = str(next((data / "bottle/ground_truth").rglob("*.png")))
    image = Image.open(path)
    smooth = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))[2:14, 2:14]
    nearest = np.asarray(image.resize((16, 16), Image.Resampling.NEAREST))[2:14, 2:14]
    expected = {"half": smooth >= 128, "nearest": nearest > 0, "full": smooth == 255}
    for by in FILTERS:  # which says nothing of masks
        for rule, mask in expected.items():
            found = shrink(read_mask(path, path), Geometry(16, 12, by, rule))
            np.testing.assert_array_equal(found, mask, err_msg=f"{by} {rule}")
    counts = {rule: mask.sum() for rule, mask in expected.items()}
    assert counts["full"] < counts["half"] and len(set(counts.values())) == 3
    for rule, mask in expected.items():
        found = shrink_whole(np.asarray(image) > 0, (16, 16), rule)
        np.testing.assert_array_equal(found[2:14, 2:14], mask)


def test_a_category_and_its_cache(data, tmp_path):
    cache = tmp_path / "cache"
    usual, other = opened(data, USUAL, cache), opened(data, OTHER, cache)
    first = data / "bottle/train/good/000.png"
    np.testing.assert_array_equal(usual.train.images[0], resized(first, "bilinear"))
    np.testing.assert_array_equal(other.train.images[0], resized(first, "lanczos"))
    assert (usual.masks != other.masks).any()
    assert len(list(cache.glob("*.npz"))) == 2
    assert len(list(cache.glob("mvtec_ad-bottle-16-12-v*.npz"))) == 1  # called as before
    assert cached_categories(str(cache), "mvtec_ad") == ["bottle"]
    for geometry, made in ((USUAL, usual), (OTHER, other)):
        again = opened(None, geometry, cache)
        np.testing.assert_array_equal(again.train.images, made.train.images)
        np.testing.assert_array_equal(again.masks, made.masks)
        np.testing.assert_array_equal(opened(data, geometry, max_decoded_bytes=0).masks, made.masks)
    with pytest.raises(UserError, match="no decoded cache named .*-16-12-lanczos-full-v"):
        opened(None, Geometry(16, 12, "lanczos", "full"), cache)


@pytest.mark.parametrize("keep", [False, True])
def test_tiles(data, tmp_path, keep):
    geometry, tiling = Geometry(16, 16, "lanczos", "full"), Tiling(40, 0)
    found = opened(data, geometry, tmp_path, tiling=tiling, keep_tiles=keep)
    first = data / "bottle/train/good/000.png"
    (batch, *_) = found.train.batches(1, np.array([0]))
    np.testing.assert_array_equal(batch.images[0][2:14, 2:14], resized(first, "lanczos"))
    mask = next((data / "bottle/ground_truth").rglob("*.png"))
    full = shrink(read_mask(str(mask), str(mask)), Geometry(16, 16, "bilinear", "full"))
    np.testing.assert_array_equal(found.masks[2], full)


def test_what_is_no_filter_and_no_rule():
    with pytest.raises(UserError, match="resize: unknown value 'bicubic'"):
        Geometry(16, 16, "bicubic")
    with pytest.raises(UserError, match="mask_rule: unknown value 'halves'; did you mean 'half'"):
        Geometry(16, 16, mask_rule="halves")


def test_records_of_before_mean_what_was():
    config = dataclasses.asdict(PaDiMConfig())
    for name in ("resize", "mask_rule", "channels"):
        del config[name]
    record = methods.with_newer_fields({"method": "padim", "config": config})
    assert config_of(record) == PaDiMConfig()
    found = Geometry.of(config_of(record))
    assert (found.resize, found.mask_rule) == ("bilinear", "half")


def test_what_makes_another_run_and_what_another_detector():
    def record(**changes):
        config = dataclasses.replace(PaDiMConfig(), **changes)
        return {"method": "padim", "config": dataclasses.asdict(config)}

    for keys, masks_differ in ((identity.IDENTITY, True), (identity.DETECTOR, False)):
        assert "resize" in identity.difference(record(), record(resize="lanczos"), keys)
        different = identity.difference(record(), record(mask_rule="nearest"), keys)
        assert bool(different) == masks_differ


@pytest.mark.compiles
def test_a_saved_model_reads_images_as_it_was_fitted(data, tmp_path):
    fields = {"image_size": 16, "grid_size": 8, "resize": "lanczos", "mask_rule": "nearest"}
    model = api.make("raw_color", **fields)
    model = api.fit(model, api.load_data(str(data), model, dataset="mvtec_ad").train)
    api.save(model, tmp_path / "model")
    loaded = api.load(tmp_path / "model")
    read = api.load_data(str(data), loaded, dataset="mvtec_ad")
    first = data / "bottle/train/good/000.png"
    np.testing.assert_array_equal(read.train.images[0][2:14, 2:14], resized(first, "lanczos"))
    files = [str(data / name) for name in read.test_names]
    scores = [found.score for found in loaded.predict(files)]
    np.testing.assert_allclose(scores, api.score(loaded, read.test).image, rtol=1e-5)
    usual = api.load_data(str(data), api.make("raw_color", image_size=16), dataset="mvtec_ad")
    with pytest.raises(UserError, match="images: loaded for another model"):
        streamed = dataclasses.replace(usual, train=opened(data, USUAL, max_decoded_bytes=0).train)
        api.score(loaded, streamed.train)


@pytest.mark.parametrize("by", FILTERS)
@pytest.mark.parametrize("example", ["stablehlo", "onnx", "savedmodel"])
def test_the_examples_of_exports_resize_so(tmp_path, example, by):
    pytest.importorskip({"onnx": "onnxruntime", "savedmodel": "tensorflow"}.get(example, "jax"))
    write_image(tmp_path / "image.png", 0)
    read = runpy.run_path(str(EXAMPLES / f"score_{example}.py"))["read"]
    given = {"resize": [16, 16], "crop": [2, 2, 14, 14],
             "resample": f"{by}, antialiased where it shrinks (Pillow's {by.upper()})"}  # fmt: skip
    found = read(tmp_path / "image.png", {"input": given})
    np.testing.assert_array_equal(found, resized(tmp_path / "image.png", by))
