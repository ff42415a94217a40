"""Masks of every kind that label tools write mark the same pixels."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imvad_jax.data.masks import MaskRule, read_mask, read_masks, survey
from imvad_jax.errors import UserError

SIDE = 32
SQUARE = np.zeros((SIDE, SIDE), bool)
SQUARE[8:20, 10:25] = True
COLOURS = np.zeros((SIDE, SIDE, 3), np.uint8)
COLOURS[SQUARE] = (200, 30, 0)


def grey(value, background=0, dtype=np.uint8):
    return Image.fromarray(np.where(SQUARE, value, background).astype(dtype))


def rgba(colour, alpha) -> Image.Image:
    array = np.dstack([np.broadcast_to(colour, (SIDE, SIDE, 3)), alpha])
    return Image.fromarray(array.astype(np.uint8))


def palette(index: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


def smooth() -> Image.Image:
    return grey(255).filter(ImageFilter.GaussianBlur(1.5))


LABELS = np.where(SQUARE, 1 + np.arange(SIDE) % 3, 0)
NOTHING = np.zeros((SIDE, SIDE))
# Name of the file, and what is drawn into it; all mark the square.
KINDS = {
    "8 bits.png": grey(255),
    "ones.png": grey(1),
    "classes.png": Image.fromarray(LABELS.astype(np.uint8)),
    "two levels.bmp": grey(255).convert("1"),
    "16 bits, ones.png": grey(1, dtype=np.uint16),
    "16 bits, 128.png": grey(128, dtype=np.uint16),
    "16 bits, many classes.png": Image.fromarray(
        np.where(SQUARE, 200 + np.arange(SIDE), 0).astype(np.uint16)
    ),
    "32 bits.tif": grey(3, dtype=np.int32),
    "float ones.tif": grey(1.0, dtype=np.float32),
    "float 255.tif": grey(255.0, dtype=np.float32),
    "jpeg.jpg": grey(255),
    "jpeg.JFIF": grey(255).convert("RGB"),
    "lossy.webp": grey(255).convert("RGB"),
    "lossless.webp": grey(2).convert("RGB"),
    "white on nothing.png": rgba((255, 255, 255), np.where(SQUARE, 255, 0)),
    "black on nothing.png": rgba((0, 0, 0), np.where(SQUARE, 255, 0)),
    "red on nothing.png": rgba(COLOURS + (9, 9, 9), np.where(SQUARE, 200, 0)),
    "grey with alpha.png": Image.merge("LA", (grey(255, 255), grey(255))),
    "opaque.png": rgba(np.dstack([SQUARE * 255] * 3), np.full((SIDE, SIDE), 255)),
    "all transparent.png": rgba(np.dstack([SQUARE * 255] * 3), NOTHING),
    "equal channels.png": grey(255).convert("RGB"),
    "colours on black.png": Image.fromarray(COLOURS),
    "colours on white.png": Image.fromarray(np.where(SQUARE[..., None], COLOURS + 1, 255)),
    "palette of classes.png": palette(SQUARE, [0, 0, 0, 128, 0, 0]),
    "palette of one colour.png": palette(SQUARE, [7, 7, 7, 7, 7, 7]),
}


@pytest.fixture
def photo(tmp_path) -> str:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def save(folder, name: str, image: Image.Image) -> str:
    options = {"lossless": "lossless" in name} if name.endswith("webp") else {}
    image.save(folder / name, **({"format": "JPEG"} if name.endswith("JFIF") else options))
    return str(folder / name)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_marks_the_same_pixels(tmp_path, photo, name, published):
    path = save(tmp_path, name, KINDS[name])
    rule, notes = survey([(path, photo)], published)
    assert rule.cuts == () and not notes
    found = read_mask(path, photo, rule)
    if "j" in name or "lossy" in name:  # edges of a lossy file move by a pixel at most
        assert (found != SQUARE).mean() < 0.01
    else:
        np.testing.assert_array_equal(found, SQUARE)


@pytest.mark.parametrize("name", ["jpeg.jpg", "lossy.webp", "16 bits, ones.png", "ones.png"])
def test_an_empty_mask_stays_empty(tmp_path, photo, name):
    empty = Image.new(KINDS[name].mode, (SIDE, SIDE))
    assert not read_mask(save(tmp_path, name, empty), photo).any()


def test_smooth_edges_are_cut_at_half_in_a_users_folder_alone(tmp_path, photo):
    pairs = [(save(tmp_path, "smooth.png", smooth()), photo)]
    pairs.append((save(tmp_path, "sharp.png", grey(255)), photo))
    rule, (note,) = survey(pairs, published=False)
    assert "half of the largest" in note and dict(rule.cuts)["grey"] > 100
    half = np.asarray(smooth()) >= dict(rule.cuts)["grey"]
    np.testing.assert_array_equal(read_mask(*pairs[0], rule), half)
    np.testing.assert_array_equal(read_mask(*pairs[1], rule), SQUARE)
    published, notes = survey(pairs, published=True)
    assert published.cuts == () and not notes
    np.testing.assert_array_equal(read_mask(*pairs[0], published), np.asarray(smooth()) > 0)
    # Floating-point shades likewise.
    shades = Image.fromarray(np.asarray(smooth(), np.float32) / 255)
    pair = save(tmp_path, "shades.tif", shades), photo
    rule, _ = survey([pair], published=False)
    np.testing.assert_array_equal(read_mask(*pair, rule), np.asarray(shades) >= 0.5)


@pytest.mark.parametrize("name", ["ones.png", "smooth.png", "jpeg.jpg", "colours on black.png"])
def test_the_flag_overrides_every_rule(tmp_path, photo, name):
    image = KINDS.get(name, smooth())
    pair = save(tmp_path, name, image), photo
    values = np.asarray(Image.open(pair[0]))
    values = values.max(-1) if values.ndim == 3 else values
    for flag, expected in (("nonzero", values > 0), ("half", values >= values.max() / 2)):
        rule, _ = survey([pair], published=True, values=flag)
        np.testing.assert_array_equal(read_mask(*pair, rule), expected)


def test_what_cannot_be_a_mask_is_refused_by_name(tmp_path, photo):
    odd = {
        "faint.jpg": (grey(60), r"largest value is \d\d;"),
        "nan.tif": (grey(np.nan, dtype=np.float32), "NaN"),
        "negative.tif": (grey(-2, dtype=np.int32), "negative values, -2"),
        "small.png": (Image.new("L", (16, 16)), "16 x 16 pixels for an image of 32 x 32"),
    }
    for name, (image, reason) in odd.items():
        path = save(tmp_path, name, image)
        with pytest.raises(UserError, match=reason) as caught:
            read_mask(path, photo)
        assert str(caught.value).startswith(path)
    for flag in ("values", "orientation"):
        with pytest.raises(UserError, match=f"mask_{flag}"):
            survey([], True, **{flag: "never"})


def test_the_commonest_colour_of_the_border_is_noted(tmp_path, photo):
    remarks = []
    name = "colours on white.png"
    found = read_mask(save(tmp_path, name, KINDS[name]), photo, remarks=remarks)
    np.testing.assert_array_equal(found, SQUARE)
    assert len(remarks) == 1 and "[255, 255, 255]" in remarks[0]


def test_several_masks_are_united(tmp_path, photo):
    left, right = SQUARE.copy(), SQUARE.copy()
    left[:, 17:], right[:, :17] = False, False
    paths = [
        save(tmp_path, f"{number}.png", Image.fromarray(part))
        for number, part in enumerate((left, right))
    ]
    np.testing.assert_array_equal(read_masks(paths, photo), SQUARE)
    assert not read_masks([], photo).any()


def turned(folder, name: str, size, orientation: int) -> str:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(folder / name, exif=exif)
    return str(folder / name)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_mask_of_the_stored_size_turns_with_its_photo(tmp_path, orientation):
    photo = turned(tmp_path, "photo.jpg", (20, 30), orientation)
    stored = np.zeros((30, 20), bool)
    stored[3:7, 2:12] = True
    exif = Image.Exif()
    exif[0x0112] = orientation
    with_tag = tmp_path / "with tag.png"
    Image.fromarray(stored).save(with_tag, exif=exif)
    upright = np.asarray(Image.fromarray(stored))
    upright = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright, -1), 7: np.rot90(upright, 2).T, 8: np.rot90(upright),
    }[orientation]  # fmt: skip
    drawn = save(tmp_path, "stored.png", Image.fromarray(stored))
    np.testing.assert_array_equal(read_mask(drawn, photo), upright)
    # A mask with a tag of its own is turned by that.
    np.testing.assert_array_equal(read_mask(str(with_tag), photo), upright)
    if orientation >= 5:
        shown = save(tmp_path, "shown.png", Image.fromarray(upright))
        np.testing.assert_array_equal(read_mask(shown, photo), upright)


def test_other_masks_of_the_category_tell_how_a_square_one_lies(tmp_path):
    square = turned(tmp_path, "square.jpg", (SIDE, SIDE), 6)
    oblong = turned(tmp_path, "oblong.jpg", (20, 30), 6)
    stored = save(tmp_path, "stored.png", Image.new("L", (20, 30)))
    shown = save(tmp_path, "shown.png", Image.new("L", (30, 20)))
    mask = save(tmp_path, "mask.png", grey(255))
    turn = np.rot90(SQUARE, -1)
    for others, expected, noted in (
        ([], turn, True),
        ([(stored, oblong)], turn, False),
        ([(shown, oblong)], SQUARE, False),
    ):
        rule, notes = survey([(mask, square), *others], published=True)
        np.testing.assert_array_equal(read_mask(mask, square, rule), expected)
        assert bool(notes) == noted
    for flag, expected in (("stored", turn), ("shown", SQUARE)):
        rule, notes = survey([(mask, square)], True, orientation=flag)
        np.testing.assert_array_equal(read_mask(mask, square, rule), expected)
        assert not notes


def test_a_rule_travels_through_a_record():
    rule = MaskRule("auto", (("float", 0.5), ("grey", 127.5)), False)
    found = rule.as_dict()
    cuts = tuple(sorted(found["cuts"].items()))
    assert dataclasses.replace(MaskRule(), **found | {"cuts": cuts}) == rule
    assert "127.5" in rule.words and "not zero" in MaskRule().words
