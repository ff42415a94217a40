"""What every category draws with: coordinates, noise, shapes. Canvas units: x, y in [-1, 1]."""

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage


@functools.lru_cache(maxsize=4)
def axes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x, y float32 [n, n] at the pixel centres of an n x n canvas (read-only: cached)."""
    line = (np.arange(n, dtype=np.float32) + 0.5) * (2.0 / n) - 1.0
    x, y = np.meshgrid(line, line)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def pose(
    rng: np.random.Generator, n: int, turn: float, shift: float, zoom: float
) -> tuple[np.ndarray, np.ndarray, "Frame"]:
    """Returns a part's own coordinates u, v [n, n] and the frame that leads back to the canvas.

    `turn` in radians, `shift` in canvas units and `zoom` as a fraction are the half-ranges of
    three uniform draws.
    """
    angle = rng.uniform(-turn, turn)
    centre = rng.uniform(-shift, shift, 2)
    scale = 1.0 + rng.uniform(-zoom, zoom)
    frame = Frame(float(angle), (float(centre[0]), float(centre[1])), float(scale))
    x, y = axes(n)
    c, s = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    return c * dx + s * dy, c * dy - s * dx, frame


class Frame:
    """Where a part lies on the canvas."""

    def __init__(self, angle: float, centre: tuple[float, float], scale: float):
        self.angle, self.centre, self.scale = angle, centre, scale

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """Part coordinates [..., 2] to canvas coordinates [..., 2]."""
        c, s = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        u, v = points[..., 0], points[..., 1]
        return np.stack([c * u - s * v, s * u + c * v], -1) + np.asarray(self.centre)


def clouds(
    rng: np.random.Generator, n: int, cells: int, octaves: int = 1, fall: float = 0.5
) -> np.ndarray:
    """Returns smooth noise [n, n], mean 0 and standard deviation about 1.

    `cells` is the number of lumps across the canvas; each further octave doubles it and weighs
    `fall` of the one before. The random numbers drawn do not depend on n, so that a part looks
    the same at every resolution.
    """
    total = np.zeros((n, n), np.float32)
    weight, power = 1.0, 0.0
    for _ in range(octaves):
        lumps = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
        # The margin keeps the resampling filter's border rule out of the picture.
        box = (1.0, 1.0, cells + 1.0, cells + 1.0)
        layer = Image.fromarray(lumps).resize((n, n), Image.Resampling.BICUBIC, box=box)
        total += weight * np.asarray(layer)
        power += (0.75 * weight) ** 2
        weight, cells = weight * fall, cells * 2
    return total / np.float32(np.sqrt(power))


def grain(rng: np.random.Generator, n: int) -> np.ndarray:
    """Returns uncorrelated noise [n, n], cheap: one table shifted, not n * n normal draws."""
    table = _grain_table()
    rows, columns = (np.arange(n) + start for start in rng.integers(0, len(table), 2))
    return table[np.ix_(rows % len(table), columns % len(table))]


@functools.lru_cache(maxsize=1)
def _grain_table() -> np.ndarray:
    return np.random.default_rng(20240229).standard_normal((1024, 1024)).astype(np.float32)


def inside(distance: np.ndarray, n: int, soft: float = 1.0) -> np.ndarray:
    """Coverage [n, n] in [0, 1] of the shape whose signed distance (canvas units) is given.

    `soft` is the width of the edge in pixels of the canvas.
    """
    return np.clip(0.5 - distance * np.float32(n / 2 / soft), 0.0, 1.0)


def blob(
    rng: np.random.Generator,
    n: int,
    centre: np.ndarray,
    radius: float,
    *,
    rough: float = 0.2,
    stretch: float = 1.0,
) -> np.ndarray:
    """Returns about the signed distance [n, n] to an irregular closed outline around `centre`."""
    x, y = axes(n)
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    p, q = (c * dx + s * dy) / np.float32(stretch), (c * dy - s * dx) * np.float32(stretch)
    harmonics = np.arange(2, 8)
    size = rng.normal(0, 1, len(harmonics)) * rough / harmonics**0.6
    phase = rng.uniform(0, 2 * np.pi, len(harmonics))
    # The outline is a function of the angle alone: a table of 512 angles, read per pixel.
    table_angle = np.linspace(-np.pi, np.pi, 513)
    outline = radius * (1 + (size * np.cos(np.outer(table_angle, harmonics) + phase)).sum(1))
    outline = np.maximum(outline, 0.35 * radius).astype(np.float32)
    place = (np.arctan2(q, p) + np.float32(np.pi)) * np.float32(512 / (2 * np.pi))
    return np.hypot(p, q) - outline[np.clip(place, 0, 512).astype(np.int32)]


def curve(
    rng: np.random.Generator,
    start: np.ndarray,
    angle: float,
    length: float,
    bend: float,
    *,
    steps: int = 40,
) -> np.ndarray:
    """Returns points [steps + 1, 2] of a wandering line; `bend` is the spread of its heading.

    The heading is a smoothed random walk, so small `bend` gives a nearly straight line.
    """
    heading = np.cumsum(rng.normal(0, 1, steps)) * bend / np.sqrt(steps)
    heading = angle + ndimage.gaussian_filter1d(heading, 2.0)
    move = np.stack([np.cos(heading), np.sin(heading)], -1) * (length / steps)
    return np.concatenate([[start], start + np.cumsum(move, 0)]).astype(np.float64)


def stroke(points: np.ndarray, width: float | np.ndarray, n: int) -> np.ndarray:
    """Returns coverage [n, n] of a line through `points` [k, 2] of `width` (canvas units, [k])."""
    fine = 2 * n
    picture = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(picture)
    at = (np.asarray(points) + 1.0) * (fine / 2)
    radius = np.broadcast_to(np.asarray(width, np.float64), (len(at),)) * (fine / 4)
    for (x0, y0), (x1, y1), r0, r1 in zip(at[:-1], at[1:], radius[:-1], radius[1:], strict=True):
        norm = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-9)
        ox, oy = -(y1 - y0) / norm, (x1 - x0) / norm
        pen.polygon(
            [
                (x0 + ox * r0, y0 + oy * r0),
                (x1 + ox * r1, y1 + oy * r1),
                (x1 - ox * r1, y1 - oy * r1),
                (x0 - ox * r0, y0 - oy * r0),
            ],
            fill=255,
        )
        pen.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill=255)
    return np.asarray(picture.reduce(2), np.float32) / np.float32(255)


def soften(image: np.ndarray, units: float) -> np.ndarray:
    """Gaussian blur of [n, n] by a standard deviation in canvas units."""
    n = image.shape[0]
    sigma = units * n / 2
    if sigma < 5 or n % 4:
        return ndimage.gaussian_filter(image, sigma, truncate=3.0)
    # Wide blurs (shadows) need no fine grid: sixteen times less work, no visible difference.
    small = image.reshape(n // 4, 4, n // 4, 4).mean((1, 3), dtype=np.float32)
    small = ndimage.gaussian_filter(small, sigma / 4, truncate=3.0)
    return np.asarray(Image.fromarray(small).resize((n, n), Image.Resampling.BICUBIC))


def bite(
    height: np.ndarray, floor: np.ndarray, distance: np.ndarray, solid: np.ndarray, through: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Breaks a piece out of a rim: down to `floor`, and right through where deeper than `through`.

    Returns the new height and three coverages [n, n]: the broken surface, the gap, and all that
    changes: a little beyond the break and beyond `solid`, as far as the shading feels them.
    """
    n = height.shape[0]
    broken = inside(distance, n)
    gone = inside(distance + np.float32(through), n)
    surface = mix(height, np.minimum(height, floor), soften(broken, 0.005) * solid)
    surface = mix(surface, 0.0, inside(distance + np.float32(through), n, soft=3))
    reach = np.clip(4 * soften(broken, 0.006), 0, 1) * np.clip(12 * soften(solid, 0.006), 0, 1)
    return surface.astype(np.float32), broken * solid, gone, reach


def mix(below: np.ndarray, above: np.ndarray | float, alpha: np.ndarray) -> np.ndarray:
    """Lays `above` over `below` ([n, n] or [n, n, C]) where `alpha` [n, n] covers it."""
    if below.ndim == 3:
        alpha = alpha[..., None]
    return below + (above - below) * alpha


def blend(rng: np.random.Generator, colours: np.ndarray, even: float = 1.0) -> np.ndarray:
    """Returns a random mixture [3] of `colours` [k, 3]: how batches of one product differ."""
    return (rng.dirichlet(np.full(len(colours), even)) @ colours).astype(np.float32)
