"""A pressed oblong tablet with a stamped imprint, in changing batches: an object, in colour."""

import numpy as np

from imvad_jax.data.demo import primitives as draw
from imvad_jax.data.demo.scene import Part, lamp

HALF = 0.34  # half of the straight stretch
ROUND = 0.36  # radius of the ends
TOP = 0.20
_BATCHES = np.array(
    [[0.74, 0.52, 0.40], [0.78, 0.70, 0.42], [0.76, 0.48, 0.50], [0.76, 0.72, 0.66]], np.float32
)
_TRAYS = np.array(
    [[0.05, 0.08, 0.14], [0.10, 0.12, 0.13], [0.16, 0.20, 0.24], [0.07, 0.13, 0.12]], np.float32
)
# Strokes of the imprint, "I M 5", in part units.
_GLYPHS = (
    ((-0.42, -0.15), (-0.42, 0.15)),
    ((-0.24, 0.15), (-0.24, -0.15), (-0.13, 0.04), (-0.02, -0.15), (-0.02, 0.15)),
    (
        (0.42, -0.15),
        (0.25, -0.15),
        (0.23, -0.02),
        (0.34, -0.05),
        (0.43, 0.03),
        (0.41, 0.12),
        (0.32, 0.16),
        (0.22, 0.12),
    ),
)


def _imprint(frame: draw.Frame, n: int, glyphs: tuple) -> np.ndarray:
    """Coverage [n, n] of the stamped strokes."""
    total = np.zeros((n, n), np.float32)
    for glyph in glyphs:
        points = frame.to_canvas(np.asarray(glyph))
        total = np.maximum(total, draw.stroke(points, 0.052, n))
    return total


def _pressed(height: np.ndarray, stamp: np.ndarray) -> np.ndarray:
    return (height - 0.026 * draw.soften(stamp, 0.007)).astype(np.float32)


def build(rng: np.random.Generator, n: int) -> Part:
    u, v, frame = draw.pose(rng, n, turn=0.35, shift=0.06, zoom=0.03)
    distance = np.hypot(np.maximum(np.abs(u) - HALF, 0), v) - ROUND
    solid = draw.inside(distance, n)
    inward = np.clip(-distance / ROUND, 0, 1)
    dome = TOP * np.sqrt(np.clip(1 - (1 - inward) ** 2.6, 0, 1)) * 0.8
    powder = draw.clouds(rng, n, 110, octaves=2, fall=0.8)
    granule = np.clip(draw.clouds(rng, n, 60) - 1.7, 0, 1)
    base = draw.blend(rng, _BATCHES, 0.8) * np.float32(np.exp(rng.normal(0, 0.10)))
    mottled = 1 + 0.025 * powder + 0.035 * draw.clouds(rng, n, 4, octaves=2)
    mottled = mottled - rng.uniform(0.12, 0.40) * granule
    body = base * mottled[..., None]

    tray = draw.blend(rng, _TRAYS) * np.float32(np.exp(rng.normal(0, 0.25)))
    felt = 1 + 0.07 * draw.clouds(rng, n, 90, octaves=2, fall=0.8) + 0.05 * draw.clouds(rng, n, 3)
    light = lamp(rng, grey=False, spread=0.5, exposure=0.18, tint=0.05, slope=0.18)
    lx, ly, _ = light.direction
    reach = 0.10 * n / 2
    cast = np.roll(solid, (int(-ly * reach), int(-lx * reach)), (0, 1))
    shadow = 0.5 * draw.soften(cast, 0.03) + 0.3 * draw.soften(solid, 0.025)
    ground = tray * (felt * (1 - np.clip(shadow, 0, 0.8)))[..., None]

    stamp = _imprint(frame, n, _GLYPHS)
    plain = (draw.soften(dome, 0.004) + 0.0008 * powder) * solid
    known = {
        "frame": frame,
        "distance": distance,
        "solid": solid,
        "ground": ground,
        "base": base,
        "plain": plain,
        "body": body,
        "powder": powder,
    }
    albedo = draw.mix(ground, body * (1 - 0.10 * draw.soften(stamp, 0.004))[..., None], solid)
    return Part(
        _pressed(plain, stamp), albedo.astype(np.float32), 0.10 * solid, 30.0, light, known=known
    )


def _place(part: Part, rng: np.random.Generator, edge: float) -> np.ndarray:
    """A random place [2] inside the outline shrunk by `edge`, in canvas coordinates."""
    return part.known["frame"].to_canvas(
        np.array([rng.uniform(-HALF, HALF), rng.uniform(-1, 1) * (ROUND - edge)])
    )


def crack(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A jagged fissure with a side branch."""
    n = part.n
    aim = part.known["frame"].angle + rng.choice([-1, 1]) * rng.uniform(0.8, 2.2)
    length = rng.uniform(0.35, 0.65)
    start = _place(part, rng, 0.12) - length / 2 * np.array([np.cos(aim), np.sin(aim)])
    points = draw.curve(rng, start, aim, length, bend=1.0, steps=24)
    points[1:-1] += rng.normal(0, 0.008, (len(points) - 2, 2))
    taper = np.sin(np.linspace(0.2, np.pi - 0.1, len(points))) ** 0.5
    alpha = draw.stroke(points, rng.uniform(0.009, 0.017) * taper, n)
    fork = draw.curve(
        rng,
        points[int(rng.integers(8, 17))],
        aim + rng.choice([-1, 1]) * 0.8,
        length * 0.35,
        bend=1.0,
        steps=10,
    )
    alpha = np.maximum(alpha, draw.stroke(fork, 0.008, n)) * part.known["solid"]
    changed = part.changed(
        height=(part.height - 0.012 * draw.soften(alpha, 0.004)).astype(np.float32),
        albedo=draw.mix(part.albedo, part.albedo * rng.uniform(0.4, 0.65), alpha),
        gloss=part.gloss * (1 - alpha),
    )
    return changed, alpha


def chip(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """Powder broke off the rim: a rough, paler hollow and a bitten outline."""
    n, known = part.n, part.known
    side, along = rng.choice([-1, 1]), rng.uniform(-1, 1)
    if rng.random() < 0.5:
        rim = np.array([along * HALF, side * ROUND])
    else:
        rim = np.array([side * (HALF + ROUND * np.cos(along)), ROUND * np.sin(along)])
    rough = draw.clouds(rng, n, 20, octaves=3, fall=0.6)
    centre = known["frame"].to_canvas(rim)
    distance = draw.blob(rng, n, centre, rng.uniform(0.10, 0.15), rough=0.2) + 0.010 * rough
    floor = TOP * 0.4 + 0.010 * rough + 0.6 * np.clip(distance, -0.1, 0)
    height, broken, gone, reach = draw.bite(part.height, floor, distance, known["solid"], 0.055)
    inner = (known["base"] * 1.08) * (1 + 0.10 * rough)[..., None]
    albedo = draw.mix(part.albedo, np.clip(inner, 0, 0.95), broken)
    albedo = draw.mix(albedo, known["ground"], gone)
    changed = part.changed(
        height=height,
        albedo=albedo.astype(np.float32),
        gloss=part.gloss * (1 - broken) * (1 - gone),
    )
    return changed, reach


def imprint(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """One or two of the stamped signs are faint or missing."""
    n, known = part.n, part.known
    missing = rng.choice(3, size=int(rng.integers(1, 3)), replace=False)
    left = tuple(g for i, g in enumerate(_GLYPHS) if i not in missing)
    lost = tuple(g for i, g in enumerate(_GLYPHS) if i in missing)
    faint = rng.uniform(0.0, 0.45)
    stamp = np.maximum(_imprint(known["frame"], n, left), faint * _imprint(known["frame"], n, lost))
    body = known["body"] * (1 - 0.10 * draw.soften(stamp, 0.004))[..., None]
    albedo = draw.mix(known["ground"], body, known["solid"]).astype(np.float32)
    alpha = draw.soften(_imprint(known["frame"], n, lost), 0.010)
    return part.changed(height=_pressed(known["plain"], stamp), albedo=albedo), alpha * 1.5


def contamination(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """Foreign powder pressed into the surface: one patch and some crumbs around it."""
    n = part.n
    centre = _place(part, rng, 0.10)
    colours = np.array([[0.16, 0.12, 0.10], [0.36, 0.26, 0.16], [0.24, 0.30, 0.34]], np.float32)
    colour = draw.blend(rng, colours) + part.known["base"] * np.float32(rng.uniform(0.05, 0.3))
    speck = draw.clouds(rng, n, 45, octaves=2)
    alpha = np.zeros((n, n), np.float32)
    for i in range(int(rng.integers(3, 7))):
        radius = rng.uniform(0.028, 0.05) if i == 0 else rng.uniform(0.010, 0.018)
        away = 0.0 if i == 0 else rng.uniform(0.08, 0.17)
        turn = rng.uniform(0, 2 * np.pi)
        place = centre + away * np.array([np.cos(turn), np.sin(turn)])
        distance = draw.blob(rng, n, place, radius, rough=0.3, stretch=1.2)
        alpha = np.maximum(alpha, draw.inside(distance + 0.006 * speck, n, soft=2))
    alpha = alpha * part.known["solid"]
    tone = colour * (1 + 0.2 * speck)[..., None]
    changed = part.changed(
        height=(part.height + alpha * (0.004 + 0.002 * speck)).astype(np.float32),
        albedo=draw.mix(part.albedo, tone, 0.9 * alpha).astype(np.float32),
        gloss=part.gloss * (1 - 0.7 * alpha),
    )
    return changed, alpha


DEFECTS = {"chip": chip, "contamination": contamination, "crack": crack, "imprint": imprint}
