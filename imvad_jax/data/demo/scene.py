"""A part under the camera, and how the camera renders it.

A category builds a `Part` (relief, colour, gloss, light); a defect returns a changed `Part` and
where it changed it. Shading comes after both, so a dent is lit like the rest of the part.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from imvad_jax.data.demo.primitives import axes, grain


@dataclasses.dataclass(frozen=True)
class Light:
    """One lamp over diffuse surroundings."""

    direction: tuple[float, ...]  # x, y, z: towards the lamp, unit length
    ambient: float  # share of the surroundings
    colour: np.ndarray | np.float32  # [3] or one: gain of the exposure and white balance
    slope: tuple[float, ...]  # x, y: how brightness falls off across the canvas
    vignette: float
    focus: float  # blur of the optics, in output pixels at 256


def lamp(
    rng: np.random.Generator,
    grey: bool,
    *,
    azimuth: float = -2.2,
    spread: float = 0.4,
    exposure: float = 0.2,
    tint: float = 0.06,
    slope: float = 0.15,
) -> Light:
    """Draws a light: `spread`, `exposure`, `tint` and `slope` say how much it varies."""
    turn = azimuth + rng.uniform(-spread, spread)
    height = rng.uniform(0.75, 1.05)
    direction = (np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height))
    gain = np.exp(rng.uniform(-exposure, exposure))
    balance = np.exp(rng.normal(0, tint, 3))
    return Light(
        direction=tuple(float(d) for d in direction),
        ambient=float(rng.uniform(0.3, 0.45)),
        colour=np.float32(gain) if grey else (gain * balance).astype(np.float32),
        slope=tuple(float(s) for s in rng.uniform(-slope, slope, 2)),
        vignette=float(rng.uniform(0.04, 0.14)),
        focus=float(rng.uniform(0.45, 0.75)),
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """What lies under the camera, on a canvas of n x n."""

    height: np.ndarray  # [n, n], canvas units
    albedo: np.ndarray  # linear, [n, n] or [n, n, 3]
    gloss: np.ndarray | float  # [n, n]: strength of the highlight
    sharpness: float  # exponent of the highlight
    light: Light
    sheen: np.ndarray | float = 0.0  # [n, n]: light added by what normals do not tell
    known: dict[str, Any] = dataclasses.field(default_factory=dict)  # what defects need to know

    def changed(self, **fields: Any) -> "Part":
        return dataclasses.replace(self, **fields)

    @property
    def n(self) -> int:
        return self.height.shape[0]


def shade(part: Part) -> np.ndarray:
    """Returns linear light [n, n] or [n, n, 3]: Lambert, a Blinn highlight, the lamp's fall-off."""
    n, light = part.n, part.light
    slope_y, slope_x = np.gradient(part.height * np.float32(n / 2))
    length = 1.0 / np.sqrt(1.0 + slope_x * slope_x + slope_y * slope_y)
    lx, ly, lz = light.direction
    facing = np.maximum((np.float32(lz) - slope_x * lx - slope_y * ly) * length, 0.0)
    half = np.array([lx, ly, lz + 1.0]) / np.sqrt(lx * lx + ly * ly + (lz + 1.0) ** 2)
    mirror = np.maximum((half[2] - slope_x * half[0] - slope_y * half[1]) * length, 0.0)
    highlight = part.gloss * np.exp(np.float32(-part.sharpness) * (1.0 - mirror)) + part.sheen
    diffuse = np.float32(light.ambient) + np.float32((1 - light.ambient) / lz) * facing
    x, y = axes(n)
    lit = 1.0 + light.slope[0] * x + light.slope[1] * y - light.vignette * (x * x + y * y)
    diffuse, highlight = (diffuse * lit), (highlight * lit)
    if part.albedo.ndim == 3:
        diffuse, highlight = diffuse[..., None], highlight[..., None]
    return ((part.albedo * diffuse + highlight) * light.colour).astype(np.float32)


def expose(linear: np.ndarray, focus: float) -> np.ndarray:
    """The lens: [2s, 2s, ...] -> [s, s, ...]; halves the supersampled canvas and blurs it."""
    s = linear.shape[0] // 2
    small = linear.reshape(s, 2, s, 2, *linear.shape[2:]).mean((1, 3), dtype=np.float32)
    sigma = focus * s / 256
    return ndimage.gaussian_filter(small, (sigma, sigma) + (0,) * (small.ndim - 2), truncate=3.0)


def develop(light: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """The sensor: linear [s, s, ...] -> uint8; shot and read noise, a soft shoulder, gamma 2.2.

    Noise at a pixel is a function of its own light and of `rng` only: pixels which a defect does
    not touch come out byte for byte as they do without it.
    """
    shape = light.shape
    s = shape[0]
    if light.ndim == 3:
        random = np.stack([grain(rng, s) for _ in range(shape[2])], -1)
    else:
        random = grain(rng, s)
    noisy = light + noise * np.sqrt(0.02 + 0.35 * np.maximum(light, 0)) * random
    noisy = np.maximum(noisy, 0.0)
    noisy = np.where(noisy > 0.8, 1.0 - 0.2 * np.exp(-(noisy - 0.8) / 0.2), noisy)
    return np.rint(255.0 * noisy ** np.float32(1 / 2.2)).astype(np.uint8)
