"""The audit: planted differences and copies are found, nothing is in drawn images, odd input."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from imvad_jax import audit
from imvad_jax.audit import collect, comparison, duplicates, files, separation, statistics
from imvad_jax.data.batches import ArrayImages
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError


def picture(seed: int, brighter: int = 0, side: int = 48, grey: bool = False) -> Image.Image:
    """A part of a place and size of its own on a noisy ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(120 + brighter, 8, (side, side, 3)) + rng.normal(0, 3)
    top, left, size = rng.integers(4, 14), rng.integers(4, 14), rng.integers(14, 30)
    pixels[top : top + size, left : left + size] -= rng.integers(20, 60)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.convert("L") if grey else image


def write_tree(root, train=12, good=6, bad=6, good_brighter=0, **options):
    """A labelled folder of drawn parts."""
    for place, first, count, brighter in (
        ("train/good", 0, train, 0), ("test/good", 1000, good, good_brighter),
        ("test/dent", 2000, bad, 0),
    ):  # fmt: skip
        if count:
            (root / place).mkdir(parents=True)
        for number in range(count):
            image = picture(first + number, brighter, **options)
            image.save(root / place / f"{number:03}.png")
    return root


def numbers(count: int, seed: int) -> dict[str, np.ndarray]:
    images = np.stack([np.asarray(picture(seed + n)) for n in range(count)])
    return statistics.measure(ArrayImages(images)).numbers


def test_the_numbers_are_those_that_numpy_computes():
    image = np.asarray(picture(3))
    grey = np.asarray(Image.fromarray(image).convert("L")).astype(float)
    found = {k: v[0] for k, v in statistics.measure(ArrayImages(image[None])).numbers.items()}
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    frame = np.ones(grey.shape, bool)
    frame[3:-3, 3:-3] = False
    assert found[statistics.MEAN] == pytest.approx(grey.mean(), abs=0.5)
    assert found[statistics.MEDIAN] == pytest.approx(np.median(grey), abs=0.5)
    assert found[statistics.CONTRAST] == pytest.approx(grey.std(), rel=1e-9)
    assert found[statistics.SHARPNESS] == pytest.approx(
        np.sqrt(np.mean((4 * inner - around) ** 2)), rel=1e-5
    )
    assert found[statistics.BORDER] == pytest.approx(grey[frame].mean(), rel=1e-9)
    for name, mean in zip(statistics.COLOURS, image.mean((0, 1))):
        assert found[name] == pytest.approx(mean, abs=0.05)


def test_means_of_large_pictures_are_taken_of_shrunken_ones():
    image = np.asarray(picture(5, side=256))
    found = statistics.measure(ArrayImages(image[None])).numbers
    for name, mean in zip(statistics.COLOURS, image.mean((0, 1))):
        assert found[name][0] == pytest.approx(mean, abs=0.05)


def test_grey_pictures_give_the_same_with_one_channel_and_with_three():
    grey = np.asarray(picture(1, grey=True))[None, ..., None]
    one = statistics.measure(ArrayImages(grey))
    three = statistics.measure(ArrayImages(np.repeat(grey, 3, -1)))
    assert one.digests == three.digests
    assert (one.thumbnails == three.thumbnails).all()
    for name in statistics.NAMES[:5]:
        np.testing.assert_allclose(one.numbers[name], three.numbers[name], rtol=1e-9)
    assert np.isnan(one.numbers[statistics.RED]).all()


@pytest.mark.parametrize(
    "n, m, ties", [(4, 5, False), (8, 30, False), (20, 25, True), (3, 3, True)]
)
def test_p_values_are_those_of_scipy(n, m, ties):
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(n)
    one, other = rng.normal(size=n), rng.normal(0.7, size=m)
    if ties:
        one, other = one.round(), other.round()
    expected = mannwhitneyu(one, other).pvalue
    assert separation.p_value(one, other) == pytest.approx(expected, rel=1e-6)


def test_intervals_hold_the_true_value_as_often_as_they_say():
    rng, true = np.random.default_rng(0), 0.92135  # of normal values two deviations apart
    held = 0
    for _ in range(400):
        values = {"a": rng.normal(size=20)}, {"a": rng.normal(2, size=30)}
        (found,) = separation.separate(*values)
        held += found.low <= true <= found.high
    assert 0.9 <= held / 400 <= 0.99
    low, high = separation.interval(1.0, 20, 30)
    assert high == 1 and 0.8 < low < 0.99  # not a point


def test_rank_correlations_are_those_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.normal(size=30).round(1), rng.normal(size=30)
    expected = spearmanr(one, other + one).statistic
    assert separation.rank_correlation(one, other + one) == pytest.approx(expected, abs=1e-12)
    assert separation.rank_correlation(one, np.zeros(30)) is None
    assert separation.rank_correlation(one[:2], other[:2]) is None


def test_a_planted_change_of_light_is_found(tmp_path):
    found = audit.audit(write_tree(tmp_path / "parts", 12, 10, 10, -40), image_size=48)
    first, second = found.comparisons
    assert first.warns and second.warns and found.warns
    assert first.strongest.auroc == 1 and first.strongest.p < 0.01
    assert first.nearer == comparison.DEFECTIVE  # the good images are those that differ
    assert found.lines[0].startswith("WARNING: ") and "the good test images" in found.lines[0]
    assert len(found.lines) == 3
    assert json.loads(json.dumps(found.as_dict()))["warns"] is True


def test_random_splits_raise_no_alarm():
    known = numbers(120, 5000)
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        order = rng.permutation(120)
        parts = [{k: v[o] for k, v in known.items()} for o in np.split(order, [80, 100])]
        alarms += any(
            one.separates for pair in ((1, 2), (0, 1))
            for one in separation.separate(parts[pair[0]], parts[pair[1]])
        )  # fmt: skip
    assert alarms <= 4


def test_copies_are_found_within_and_between_sets(tmp_path):
    root = write_tree(tmp_path / "parts")
    shutil.copy(root / "train/good/000.png", root / "test/good/same.png")
    Image.open(root / "train/good/001.png").save(root / "train/good/again.bmp")
    found = audit.audit(root, image_size=48)
    kinds = {one.kind: [found.facts.names[n] for n in one.numbers] for one in found.copies}
    assert kinds[duplicates.SAME_FILE] == ["train/good/000.png", "test/good/same.png"]
    assert kinds[duplicates.SAME_PIXELS] == ["train/good/001.png", "train/good/again.bmp"]
    assert len(found.crossing) == 1
    assert found.lines[2].startswith("WARNING: ") and "1 of these groups" in found.lines[2]


def test_near_copies_are_found(tmp_path):
    pytest.importorskip("imagehash")
    root = write_tree(tmp_path / "parts", 20)
    Image.open(root / "train/good/002.png").save(root / "test/dent/jpeg.jpg", quality=80)
    found = audit.audit(root, image_size=48)
    (group,) = found.copies
    assert group.kind == duplicates.NEAR
    names = [found.facts.names[n] for n in group.numbers]
    assert names == ["train/good/002.png", "test/dent/jpeg.jpg"]


@pytest.mark.parametrize(
    "counts, said",
    [
        ((6, 4, 0), "no defective test images, nothing to compare"),
        ((6, 0, 0), "no good test images, nothing to compare"),
        ((1, 1, 1), "too few to tell"),
        ((6, 2, 4), "too few to tell"),
    ],
)
def test_too_few_pictures_are_said(tmp_path, counts, said):
    found = audit.audit(write_tree(tmp_path / "parts", *counts), image_size=32)
    assert said in found.lines[0]
    assert len(found.lines) == 3 and not found.warns


def test_mixed_sizes_and_modes_are_said(tmp_path):
    root = write_tree(tmp_path / "parts", 6, 12, 0)
    for number in range(12):
        (root / "test/dent").mkdir(exist_ok=True)
        picture(3000 + number, grey=True, side=64).save(root / f"test/dent/{number}.png")
    found = audit.audit(root, image_size=48)
    assert "2 sizes mixed" in found.lines[2] and "defective 12 64 x 64" in found.lines[2]
    assert "2 modes mixed" in found.lines[2] and "no EXIF" in found.lines[2]
    first = found.comparisons[0]
    separating = {one.name for one in first.found if one.separates}
    assert {files.WIDTH, files.HEIGHT, "mode grey"} <= separating and first.warns


def test_what_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Maker", "Model", "2024:05:06 07:08:09"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0x8827: 200})
    picture(1).save(tmp_path / "a.jpg", exif=exif)
    picture(2).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    found = files.read_facts([str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")])
    assert found.texts[files.CAMERA] == ["Maker Model", "", ""]
    assert found.numbers[files.TAKEN][0] == 1714979289
    assert found.numbers[files.EXPOSURE][0] == pytest.approx(0.01)
    assert found.numbers[files.ISO][0] == 200
    assert found.numbers[files.HAS_EXIF].tolist()[:2] == [1, 0]
    assert np.isnan(found.numbers[files.WIDTH][2]) and found.numbers[files.BYTES][2] == 10


def test_what_was_found_is_kept_beside_the_decoded_cache(tmp_path, monkeypatch):
    pytest.importorskip("imagehash")
    root, cache = write_tree(tmp_path / "parts"), tmp_path / "cache"
    first = audit.audit(root, image_size=32, cache_dir=str(cache))

    def never(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(collect, "collect", never)
    again = audit.audit(root, image_size=32, cache_dir=str(cache))
    assert again.as_dict() == first.as_dict()
    alone = audit.audit(None, "parts", image_size=32, cache_dir=str(cache))  # without the files
    assert alone.lines == first.lines
    (kept,) = cache.glob("*.audit")
    kept.write_bytes(kept.read_bytes()[:100])
    monkeypatch.undo()
    assert audit.audit(root, image_size=32, cache_dir=str(cache)).lines == first.lines


def test_held_out_images_are_good_images(tmp_path):
    root = write_tree(tmp_path / "parts")
    data = open_category("folder", str(root), "parts", Geometry(32, 32), None)
    found = audit.of_category(data.hold_out(0.25, 0))
    assert found.comparisons[1].counts == (12, 6)
    assert sorted(found.facts.names) == sorted(data.train_names + data.test_names)


def test_new_pictures_are_compared_with_good_ones(tmp_path):
    root = write_tree(tmp_path / "parts", 12, 0, 0)
    (tmp_path / "new").mkdir()
    for number in range(30):
        picture(number + 50, 90).save(tmp_path / "new" / f"{number}.png")
    shutil.copy(root / "train/good/003.png", tmp_path / "new/known.png")
    found = audit.audit(root, image_size=48, new=tmp_path / "new")
    (one,) = found.comparisons
    assert (one.first, one.second, one.counts) == (comparison.TRAIN, comparison.NEW, (12, 31))
    assert len(found.lines) == 2 and one.warns
    assert [len(group.numbers) for group in found.crossing] == [2]


def test_several_categories_are_refused(tmp_path):
    for name in ("one", "two"):
        write_tree(tmp_path / name, 4, 0, 0)
    with pytest.raises(UserError, match="category is missing; one of one, two"):
        audit.audit(tmp_path)
