"""Images of predictions: the true outline, the map over the image, and the map alone."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from imvad_jax import names
from imvad_jax.marks import MARK, is_ours, own_heatmaps
from imvad_jax.owned import write_own
from imvad_jax.reporting.predictions_file import unpack_maps, unpack_masks

MIN_SIDE, MAX_SIDE = 192, 512  # of a tile, pixels: smaller ones are enlarged, larger ones shrunk
GAP = 6  # between tiles and around them, pixels
BAR_WIDTH = 12  # of the colour bar
BAR_LABEL_WIDTH = 44  # room for its two numbers
CAPTION_HEIGHT = 24
FONT_SIZE = 12

OUTLINE = (0, 255, 70)  # bright green: rare on parts, and absent from the colour map
OUTLINE_EDGE = (0, 25, 5)  # dark, so that the outline shows on bright parts as well
BACKGROUND, INK = (24, 26, 30), (222, 226, 230)

_SAMPLE = 2_000_000  # values that the colour range is estimated from


def color_range(maps: np.ndarray) -> tuple[float, float]:
    """Ends of the colour scale that all pictures of a category share.

    The 1st and the 99.9th percentile of all maps, so that single pixels do not set the scale.

    Args:
      maps: Of any shape. Values that are not finite are left out.

    Returns:
      `(low, high)` with `low < high`, also for constant and empty maps.
    """
    values = np.asarray(maps).reshape(-1)
    if values.size > _SAMPLE:  # percentiles of a sample of this size are exact to the eye
        values = values[np.random.default_rng(0).integers(0, values.size, _SAMPLE)]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (1.0, 99.9)))
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        # All low: a map that says nothing is drawn as one that finds nothing.
        return low, low + max(abs(low), 1.0)
    return low, high


@functools.lru_cache(maxsize=1)
def _colors() -> np.ndarray:
    """The colour map as a table, uint8 [256, 3]: evenly spaced to the eye, dark to bright."""
    import matplotlib  # here: slow to import, and many programs draw nothing

    return (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Size `(height, width)` at which an image is drawn; the aspect is kept.

    Small images are enlarged by a whole factor, so that their pixels stay square.
    """
    longest = max(height, width)
    if longest > MAX_SIDE:
        scale = MAX_SIDE / longest
        return max(1, round(height * scale)), max(1, round(width * scale))
    factor = -(-MIN_SIDE // longest)
    return height * factor, width * factor


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the image with the mask's border drawn in, uint8 `[H, W, 3]`.

    The bright line lies on the mask's outermost pixels and a dark one just outside of it, so
    what is inside stays visible.

    Args:
      image: uint8 `[H, W, 3]`.
      mask: bool `[H, W]`.
    """
    drawn = image.copy()
    if not mask.any():
        return drawn
    thickness = 1 if max(mask.shape) < 300 else 2
    # Outside of the image counts as good: a defect cut by the edge is closed there.
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=thickness)
    inside = np.asarray(eroded, bool)
    around = ndimage.binary_dilation(mask, np.ones((3, 3)))
    drawn[around & ~mask] = OUTLINE_EDGE
    drawn[mask & ~inside] = OUTLINE
    return drawn


def colorize(anomaly_map: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The map in colour, uint8 `[H, W, 3]`, and its values scaled to 0 ... 1, float32 `[H, W]`."""
    with np.errstate(invalid="ignore"):
        scaled = np.clip((anomaly_map.astype(np.float32) - low) / (high - low), 0, 1)
    scaled = np.nan_to_num(scaled, nan=0.0)
    return _colors()[(scaled * 255).round().astype(np.uint8)], scaled


def blend(image: np.ndarray, colors: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """The coloured map over the image, uint8 `[H, W, 3]`.

    Opaque where the map is high and clear where it is low: the part stays recognisable.
    """
    alpha = 0.75 * scaled[..., None]
    return (image + alpha * (colors.astype(np.float32) - image)).round().astype(np.uint8)


def panel(
    image: np.ndarray,
    anomaly_map: np.ndarray | None,
    mask: np.ndarray | None,
    *,
    low: float,
    high: float,
    caption: str,
) -> Image.Image:
    """One picture: the image with the true outline, the map over it, the map with its scale.

    Args:
      image: uint8 `[H, W, 3]`.
      anomaly_map: Float `[h, w]`, stretched to the image; None for image-only methods, which
        leaves the first tile alone.
      mask: bool `[h, w]`, or None.
      low: Value drawn in the darkest colour.
      high: Value drawn in the brightest colour.
      caption: One line above; shortened in the middle if it does not fit.
    """
    height, width = tile_size(*image.shape[:2])
    enlarge = height >= image.shape[0]
    resample = Image.Resampling.NEAREST if enlarge else Image.Resampling.BOX
    picture = Image.fromarray(image)
    if picture.size != (width, height):
        picture = picture.resize((width, height), resample)
    pixels = np.asarray(picture)
    tiles = [pixels]
    if mask is not None:
        tiles[0] = draw_outline(pixels, _stretch_mask(mask, height, width))
    if anomaly_map is not None:
        stretched = np.asarray(anomaly_map, np.float32)
        if stretched.shape != (height, width):
            stretched = np.asarray(
                Image.fromarray(stretched).resize((width, height), Image.Resampling.BILINEAR)
            )
        colors, scaled = colorize(stretched, low, high)
        tiles += [blend(pixels, colors, scaled), colors]

    bar = GAP + BAR_WIDTH + BAR_LABEL_WIDTH if anomaly_map is not None else 0
    size = (GAP + len(tiles) * (width + GAP) + bar, CAPTION_HEIGHT + height + GAP)
    canvas = Image.new("RGB", size, BACKGROUND)
    for number, tile in enumerate(tiles):
        canvas.paste(Image.fromarray(tile), (GAP + number * (width + GAP), CAPTION_HEIGHT))
    draw = ImageDraw.Draw(canvas)
    text = _shorten(caption, size[0] - 2 * GAP)
    draw.text((GAP, CAPTION_HEIGHT / 2), text, fill=INK, font=_font(FONT_SIZE), anchor="lm")
    if bar:
        _draw_bar(canvas, draw, left=size[0] - bar, height=height, low=low, high=high)
    return canvas


def _stretch_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at the tile's size, bool [height, width]; shrinking keeps thin scratches."""
    if mask.shape == (height, width):
        return np.asarray(mask, bool)
    source = Image.fromarray(np.asarray(mask, np.uint8) * 255)
    enlarge = height >= mask.shape[0]
    resample = Image.Resampling.NEAREST if enlarge else Image.Resampling.BOX
    return np.asarray(source.resize((width, height), resample)) > (127 if enlarge else 0)


def _draw_bar(canvas, draw, *, left: int, height: int, low: float, high: float) -> None:
    """The colour bar and its two ends, at `left`."""
    rows = np.linspace(255, 0, height).round().astype(np.uint8)
    strip = np.repeat(_colors()[rows][:, None], BAR_WIDTH, axis=1)
    canvas.paste(Image.fromarray(strip), (left, CAPTION_HEIGHT))
    font, x = _font(FONT_SIZE - 3), left + BAR_WIDTH + 4
    draw.text((x, CAPTION_HEIGHT), f"{high:.3g}", fill=INK, font=font, anchor="la")
    draw.text((x, CAPTION_HEIGHT + height), f"{low:.3g}", fill=INK, font=font, anchor="ld")


def _shorten(text: str, width: int) -> str:
    """The text cut in the middle to `width` pixels: beginnings and file names matter most."""
    font = _font(FONT_SIZE)
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # the longest that fits, by halving
    while low < high:
        keep = (low + high + 1) // 2
        fits = font.getlength(_cut(text, keep)) <= width
        low, high = (keep, high) if fits else (low, keep - 1)
    return _cut(text, low)


def _cut(text: str, keep: int) -> str:
    return text[: keep // 2] + "…" + text[len(text) - (keep - keep // 2) :]


def picture_names(paths: Iterable[str], suffix: str = ".png") -> list[str]:
    """A file name for each sample path, unique also where capitals do not count.

    `broken_large/000.png` becomes `broken_large-000.png`; what no file of any system may be called
    is changed by `names.safe`. Names depend on the paths and their order alone.
    """
    found, taken = [], set()
    for path in paths:
        stem = re.sub(r"\.[A-Za-z]{1,5}$", "", str(path).strip("/"))
        stem = re.sub(r"[^\w.=+-]", "_", re.sub(r"[/\\]+", "-", stem)) or "image"
        stem = names.safe(stem, most=220)
        name, number = f"{stem}{suffix}", 1
        while names.key(name) in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(names.key(name))
        found.append(name)
    return found


def write_heatmaps(
    directory: str | Path,
    images: Iterable[np.ndarray],
    predictions: Mapping[str, np.ndarray],
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Writes a panel for every test image.

    Args:
      directory: Made if need be. Pictures of ours of the same names are replaced.
      images: uint8 `[H, W, 3]` each, in the order of the predictions; read once, one at a time.
      predictions: The arrays of predictions.npz: `path`, `defect`, `image_score`, and where they
        exist those of `predictions_file`.
      progress: Called with the number of newly written pictures.

    Returns:
      File names in the directory, in the order of the predictions.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths, scores = predictions["path"], predictions["image_score"]
    maps, masks = unpack_maps(predictions), unpack_masks(predictions)
    low, high = color_range(predictions["anomaly_map"]) if maps is not None else (0.0, 1.0)
    written = picture_names(paths)
    earlier, about = set(own_heatmaps(directory)), PngInfo()
    about.add_text("Comment", MARK)
    rows = zip(written, images, paths, predictions["defect"], scores, strict=True)
    for number, (name, image, path, defect, score) in enumerate(rows):
        anomaly_map = maps[number] if maps is not None else None
        mask = masks[number] if masks is not None else None
        caption = f"{defect} · score {score:.4g} · {path}"
        picture = panel(image, anomaly_map, mask, low=low, high=high, caption=caption)
        # Level 1: twice the speed for a tenth more bytes.
        save = functools.partial(picture.save, format="PNG", compress_level=1, pnginfo=about)
        write_own(directory / name, save, test=lambda path: is_ours(path) or Path(path) in earlier)
        progress(1)
    return written
