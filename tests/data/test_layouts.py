"""Where files lie: each layout on a tiny tree, and what is wrong with broken ones."""

import pytest

from imvad_jax.data import layouts
from imvad_jax.errors import UserError
from tests.data.trees import mtd_tree, mvtec_tree, write_image, write_mask


def test_mvtec(tmp_path):
    mvtec_tree(tmp_path)
    layout = layouts.get("mvtec_ad")
    assert layout.categories(str(tmp_path)) == ["bottle"]
    category = layout.category(str(tmp_path), "bottle")
    assert [s.name for s in category.train][:2] == [
        "bottle/train/good/000.png", "bottle/train/good/001.png",
    ]  # fmt: skip
    assert [s.defect for s in category.test] == ["good"] * 2 + ["scratch"] * 3
    assert [s.label for s in category.test] == [0, 0, 1, 1, 1]
    assert category.has_masks and category.test[2].mask_paths[0].endswith("scratch/000_mask.png")


def test_missing_mask_is_named(tmp_path):
    mvtec_tree(tmp_path)
    (tmp_path / "bottle/ground_truth/scratch/001_mask.png").unlink()
    for name in ("mvtec_ad", "folder"):  # a folder needs no masks, but all or none
        with pytest.raises(UserError, match=r"scratch/001\.png.*mask is missing"):
            layouts.get(name).category(str(tmp_path), "bottle")


def test_nothing_to_train_on(tmp_path):
    (tmp_path / "bottle/train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="no good images"):
        layouts.get("mvtec_ad").category(str(tmp_path), "bottle")


def test_empty_defect_directory(tmp_path):
    mvtec_tree(tmp_path)
    (tmp_path / "bottle/test/dent").mkdir()
    with pytest.raises(UserError, match="test/dent.*no images"):
        layouts.get("mvtec_ad").category(str(tmp_path), "bottle")


def test_folder_without_masks_and_without_test(tmp_path):
    for i in range(3):
        write_image(tmp_path / "train" / "good" / f"{i}.jpg", i)
    layout = layouts.get("folder")
    (name,) = layout.categories(str(tmp_path))
    assert layout.category(str(tmp_path), name).test == ()
    write_image(tmp_path / "test" / "bad" / "0.jpg", 9)
    category = layout.category(str(tmp_path), name)
    assert not category.has_masks and category.test[0].label == 1
    write_mask(tmp_path / "ground_truth" / "bad" / "0.png")  # also without the suffix _mask
    assert layout.category(str(tmp_path), name).has_masks


def test_mtd_split_is_seeded_and_complete(tmp_path):
    layout = layouts.get("mtd")
    mtd_tree(tmp_path)
    first, again = (layout.category(str(tmp_path), "tile", seed=0) for _ in range(2))
    other = layout.category(str(tmp_path), "tile", seed=1)
    assert first == again and first.train != other.train
    assert len(first.train) == 8 and sum(s.label == 0 for s in first.test) == 2
    assert {s.defect for s in first.test} == {"good", "crack"}
    names = [s.name for s in first.train + first.test]
    assert len(names) == len(set(names)) == 12


def test_category_selection_suggests_the_nearest(tmp_path):
    mvtec_tree(tmp_path)
    mvtec_tree(tmp_path, "screw")
    layout = layouts.get("mvtec_ad")
    select = layouts.select_categories
    assert select(layout, str(tmp_path), ["all"]) == ["bottle", "screw"]
    assert select(layout, str(tmp_path), ["screw", "screw"]) == ["screw"]
    with pytest.raises(UserError, match="did you mean 'bottle'"):
        select(layout, str(tmp_path), ["botle"])
    with pytest.raises(UserError, match="no such directory"):
        select(layout, str(tmp_path / "nowhere"), ["all"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no category.*but 0 image files and 0 folders; expected"):
        select(layout, str(tmp_path / "empty"), ["all"])
    with pytest.raises(UserError, match=r"2 image files and 0 folders.*; dataset=folder takes"):
        select(layout, str(tmp_path / "bottle/test/good"), ["all"])
    with pytest.raises(UserError, match=r"0 image files and 2 folders \(good, scratch\); expected"):
        select(layouts.get("folder"), str(tmp_path / "bottle/test"), ["all"])


def test_unknown_dataset():
    with pytest.raises(UserError, match="did you mean 'mvtec_ad'"):
        layouts.get("mvtecad")
