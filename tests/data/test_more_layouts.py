"""The benchmark's other datasets, each on a tiny tree in exactly its layout, whole and broken."""

import shutil
from collections import Counter

import numpy as np
import pytest

from imvad_jax.data import layouts
from imvad_jax.data.masks import read_masks
from imvad_jax.errors import UserError
from tests.data.trees import (
    btad_tree,
    kolektor_tree,
    loco_tree,
    mpdd_tree,
    visa_tree,
    write_image,
    write_mask,
)

TREES = {
    "btad": btad_tree,
    "kolektorsdd": kolektor_tree,
    "mpdd": mpdd_tree,
    "mvtec_loco": loco_tree,
    "visa": visa_tree,
}
# The categories found, and of the first one: train images, test images by kind.
FOUND = {
    "btad": (["01", "02", "03"], 4, {"ko": 2, "good": 2}),
    "kolektorsdd": (["commutator"], 9, {"defect": 2, "good": 3}),
    "mpdd": (["bracket_black", "tubes"], 6, {"good": 2, "hole": 1, "scratch": 3}),
    "mvtec_loco": (["pushpins"], 4,
                   {"good": 2, "logical_anomalies": 2, "structural_anomalies": 2}),
    "visa": (["candle", "pcb1"], 4, {"anomaly": 2, "good": 2}),
}  # fmt: skip


def read(dataset, root, **options):
    """The first category."""
    layout = layouts.get(dataset)
    (name, *_) = layout.categories(str(root))
    return layout.category(str(root), name, **options)


@pytest.mark.parametrize("dataset", TREES)
def test_everything_is_found_once_and_in_order(tmp_path, dataset):
    TREES[dataset](tmp_path)
    names, train, kinds = FOUND[dataset]
    assert layouts.get(dataset).categories(str(tmp_path)) == names
    category = read(dataset, tmp_path)
    assert (category.dataset, category.name) == (dataset, names[0]) and category.has_masks
    assert len(category.train) == train and {s.label for s in category.train} == {0}
    assert Counter(s.defect for s in category.test) == kinds
    keys = [(s.defect, s.name) for s in category.test]
    assert keys == sorted(keys)
    names = [s.name for s in category.train + category.test]
    assert len(set(names)) == len(names)
    for sample in category.train + category.test:
        assert str(tmp_path / sample.name) == sample.path
        assert bool(sample.mask_paths) == bool(sample.label)
        assert read_masks(sample.mask_paths, sample.path).any() == bool(sample.label)


@pytest.mark.parametrize("dataset", TREES)
def test_an_unknown_category_gets_the_nearest(tmp_path, dataset):
    TREES[dataset](tmp_path)
    name = FOUND[dataset][0][0]
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        layouts.select_categories(layouts.get(dataset), str(tmp_path), [name + "x"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"no category of dataset '{dataset}'.*expected"):
        layouts.select_categories(layouts.get(dataset), str(tmp_path / "empty"), ["all"])


def drop(path):
    return lambda root: (root / path).unlink()


def replace(path, old, new):
    def change(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


SPLIT = "split_csv/1cls.csv"
ANOMALY = "candle/Data/Images/Anomaly"
LOGICAL = "pushpins/ground_truth/logical_anomalies"
BROKEN = [
    ("btad", drop("01/ground_truth/ko/0001.png"), r"test/ko/0001\.bmp: its mask is missing"),
    ("btad", drop("01/test/ko/0001.bmp"), r"ko/0001\.png: a mask without an image.*ko/0001\.\*"),
    ("btad", lambda root: shutil.rmtree(root / "01/train/ok"), "01/train/ok: no good images"),
    ("mpdd", drop("bracket_black/ground_truth/hole/000_mask.png"), r"hole/000\.png: its mask is"),
    ("mpdd", drop("bracket_black/test/scratch/000.png"), r"scratch/000_mask\.png: a mask without"),
    ("mvtec_loco", drop(f"{LOGICAL}/001/000.png"), r"logical_anomalies/001\.png: its mask is"),
    (
        "mvtec_loco",
        drop("pushpins/test/logical_anomalies/001.png"),
        r"001/000\.png: a mask without .* or .*/001\.\*",
    ),
    ("visa", drop(SPLIT), r"split_csv/1cls\.csv: no such file; the split"),
    ("visa", drop("candle/Data/Masks/Anomaly/001.png"), r"Anomaly/001\.JPG: its mask is missing"),
    ("visa", drop("candle/Data/Images/Normal/0001.JPG"), r"0001\.JPG: no such file; .*line 3,"),
    ("visa", lambda root: write_mask(root / "candle/Data/Masks/Anomaly/007.png"),
     r"Anomaly/007\.png: a mask without an image"),
    ("visa", replace(SPLIT, f"{ANOMALY}/000.JPG,candle/Data/Masks/Anomaly/000.png",
                     f"{ANOMALY}/000.JPG,"), r"000\.JPG: its mask is missing; .*lists none"),
    ("visa", replace(SPLIT, "test,anomaly", "train,anomaly"),
     r"1cls\.csv, line 8: split 'train' with label 'anomaly'; expected one of train/normal"),
    ("visa", replace(SPLIT, "object,", "class,"), r"1cls\.csv: columns class, .*expected object,"),
    ("visa", lambda root: (root / SPLIT).write_bytes(b"\xff\xfe\x00"), "not a readable CSV file"),
    ("visa", lambda root: (root / SPLIT).write_text("object,split,label,image,mask\n"),
     "no good images of 'candle' to train on listed"),
    ("kolektorsdd", drop("kos02/Part3_label.bmp"), r"kos02/Part3\.jpg: its mask is missing"),
    ("kolektorsdd", drop("kos02/Part3.jpg"), r"Part3_label\.bmp: a mask without an image"),
    ("kolektorsdd", lambda root: (root / "kos02/Part1.jpg").write_bytes(b"no image"),
     r"kos02/Part1\.jpg: not a readable image"),
]  # fmt: skip


@pytest.mark.parametrize("dataset, damage, message", BROKEN)
def test_what_is_wrong_is_named(tmp_path, dataset, damage, message):
    TREES[dataset](tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        read(dataset, tmp_path)


@pytest.mark.parametrize("dataset", TREES)
def test_a_mask_of_another_size_is_named(tmp_path, dataset):
    TREES[dataset](tmp_path)
    mask = next(s for s in read(dataset, tmp_path).test if s.label).mask_paths[-1]
    write_mask(tmp_path / "small.png", (7, 9))
    shutil.copy(tmp_path / "small.png", mask)  # Pillow goes by the content
    with pytest.raises(UserError, match=f"{mask}: mask of 9 x 7 pixels"):
        for sample in read(dataset, tmp_path).test:
            read_masks(sample.mask_paths, sample.path)


def test_btad_in_all_its_suffixes(tmp_path):
    btad_tree(tmp_path)
    for name, image, mask in (
        ("01", ".bmp", ".png"),
        ("02", ".png", ".png"),
        ("03", ".bmp", ".bmp"),
    ):
        bad = layouts.get("btad").category(str(tmp_path), name).test[-1]
        assert bad.path.endswith(f"test/ko/0001{image}")
        assert bad.mask_paths[0].endswith(f"ground_truth/ko/0001{mask}")


def test_loco_unites_the_masks_of_an_image(tmp_path):
    loco_tree(tmp_path)
    category = read("mvtec_loco", tmp_path)
    first, second = (s for s in category.test if s.defect == "logical_anomalies")
    assert (len(first.mask_paths), len(second.mask_paths)) == (2, 1)
    expected = np.zeros((30, 50), bool)
    expected[5:20, 5:20] = expected[12:27, 12:27] = True
    np.testing.assert_array_equal(read_masks(first.mask_paths, first.path), expected)
    assert not any("validation" in s.name for s in category.train + category.test)


def test_visa_follows_the_split_and_takes_small_values_as_defects(tmp_path):
    visa_tree(tmp_path)
    category = read("visa", tmp_path)
    assert [s.name[-8:] for s in category.train] == ["0000.JPG", "0002.JPG", "0003.JPG", "0005.JPG"]
    areas = [read_masks(s.mask_paths, s.path).sum() for s in category.test]
    assert areas == [225, 225, 0, 0]  # classes 1 and 2, and two good images


def test_visa_as_prepared_by_the_authors_script(tmp_path):
    top = tmp_path / "candle"
    for i, place in enumerate(("train/good", "test/good", "test/bad")):
        write_image(top / place / "000.JPG", i)
    write_mask(top / "ground_truth/bad/000.png")
    category = read("visa", tmp_path)
    assert [s.name for s in category.train] == ["candle/train/good/000.JPG"]
    assert [s.defect for s in category.test] == ["bad", "good"]


def test_kolektor_draws_a_seeded_split_and_leaves_repeated_items_out(tmp_path):
    kolektor_tree(tmp_path)
    first, again, other = (read("kolektorsdd", tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first == again and first.train != other.train
    items = {s.name.split("/")[0] for s in first.train + first.test}
    assert items == {"kos01", "kos02"}


def test_masks_of_no_image_are_refused_in_the_older_layouts_too(tmp_path):
    mpdd_tree(tmp_path)
    write_mask(tmp_path / "tubes/ground_truth/dent/000_mask.png")  # a kind without test images
    for name in ("mvtec_ad", "folder"):
        with pytest.raises(UserError, match="dent/000_mask.png: a mask without an image"):
            layouts.get(name).category(str(tmp_path), "tubes")
