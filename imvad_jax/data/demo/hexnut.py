"""A turned steel nut from above, at any angle, on a grey table: an object, single-channel."""

import numpy as np

from imvad_jax.data.demo import primitives as draw
from imvad_jax.data.demo.scene import Part, lamp

FLATS = 0.56  # half the width across flats, canvas units
BORE = 0.285
TOP = 0.22  # height of the nut's face above the table


def build(rng: np.random.Generator, n: int) -> Part:
    u, v, frame = draw.pose(rng, n, turn=np.pi, shift=0.08, zoom=0.03)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    turn = np.pi / 3 * np.arange(3)
    hexagon = np.max(
        [np.abs(u * np.float32(np.cos(a)) + v * np.float32(np.sin(a))) for a in turn], axis=0
    )
    body = draw.inside(hexagon - FLATS, n)
    face = TOP - 0.50 * np.maximum(radius - 0.965 * FLATS, 0)  # the 30 degree chamfer
    face = face - 0.75 * np.maximum(BORE + 0.045 - radius, 0) * (radius > BORE - 0.01)
    # Below the chamfer the thread winds down, seen as rings that close in a spiral.
    depth = np.clip((BORE - radius) / 0.06, 0, 1)
    spiral = np.sin((BORE - radius) * np.float32(2 * np.pi / 0.021) + angle)
    thread = draw.inside(radius - BORE, n)
    hollow = draw.inside(radius - BORE + 0.062, n)

    # Turning marks: one profile over the radius, slightly off centre.
    marks = np.convolve(rng.standard_normal(700), [0.3, 0.4, 0.3], "same").astype(np.float32)
    off = rng.normal(0, 0.01, 2)
    turned = np.hypot(u - np.float32(off[0]), v - np.float32(off[1]))
    groove = marks[np.clip(turned * 600, 0, 699).astype(np.int32)]
    wear = draw.clouds(rng, n, 5, octaves=4, fall=0.6)
    steel = rng.uniform(0.24, 0.42)
    albedo = steel * (1 + 0.07 * groove + 0.11 * wear)
    albedo = draw.mix(albedo, steel * (0.55 - 0.42 * depth + 0.28 * (1 - depth) * spiral), thread)

    table = rng.uniform(0.24, 0.52) * (
        1 + 0.02 * draw.clouds(rng, n, 3, octaves=2) + 0.02 * draw.clouds(rng, n, 120)
    )
    light = lamp(rng, grey=True, spread=0.6, exposure=0.32, slope=0.18)
    lx, ly, _ = light.direction
    reach = 0.10 * n / 2 / np.hypot(lx, ly)
    cast = np.roll(body * (1 - hollow), (int(-ly * reach), int(-lx * reach)), (0, 1))
    shadow = 0.45 * draw.soften(cast, 0.035) + 0.25 * draw.soften(body, 0.03)
    ground = table * (1 - np.clip(shadow, 0, 0.75))
    solid = body * (1 - hollow)
    albedo = draw.mix(ground * (1 - 0.55 * hollow), albedo, solid)
    turning = 0.0006 * (groove + 0.4 * wear) * solid * (1 - thread)
    height = draw.soften(face * solid, 0.006) + turning

    # Rings mirror the lamp in two opposite fans: the bow tie on turned metal.
    toward = np.arctan2(ly, lx) - frame.angle
    fan = np.cos(angle - np.float32(toward))
    sheen = np.exp(-(1 - np.abs(fan)) * rng.uniform(9, 16)) * (0.8 + 0.25 * groove)
    flat = (radius < FLATS) & (radius > BORE + 0.045)
    sheen = rng.uniform(0.10, 0.22) * sheen * flat * solid
    known = {
        "frame": frame,
        "radius": radius,
        "solid": solid,
        "ground": ground,
        "steel": steel,
        "face": solid * (1 - thread),
    }
    return Part(
        height.astype(np.float32),
        albedo.astype(np.float32),
        0.30 * solid * (1 - 0.8 * thread),
        40.0,
        light,
        sheen.astype(np.float32),
        known,
    )


def _spot(part: Part, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A random place [2] on the nut, between two radii (part units), in canvas coordinates."""
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(low, high)
    return part.known["frame"].to_canvas(radius * np.array([np.cos(angle), np.sin(angle)]))


def scratch(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """One to three grooves across the face, with a raised bright lip."""
    n, heading = part.n, rng.uniform(0, 2 * np.pi)
    middle = _spot(part, rng, BORE + 0.09, FLATS - 0.07)
    alpha = np.zeros((n, n), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        length = rng.uniform(0.25, 0.55)
        aim = heading + rng.normal(0, 0.15)
        start = middle + rng.normal(0, 0.025, 2) - length / 2 * np.array([np.cos(aim), np.sin(aim)])
        points = draw.curve(rng, start, aim, length, bend=0.15)
        taper = np.sin(np.linspace(0.15, np.pi - 0.1, len(points))) ** 0.5
        alpha = np.maximum(alpha, draw.stroke(points, rng.uniform(0.012, 0.020) * taper, n))
    alpha = alpha * part.known["face"]
    groove = draw.soften(alpha, 0.004)
    bright = rng.uniform(0.7, 1.1)
    albedo = draw.mix(part.albedo, part.known["steel"] * bright, 0.6 * alpha)
    changed = part.changed(
        height=part.height - 0.012 * groove,
        albedo=albedo,
        sheen=part.sheen * (1 - alpha) + 0.10 * alpha,
    )
    return changed, np.maximum(alpha, groove)


def dent(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A blow pressed the metal in and smeared the turning marks."""
    n = part.n
    radius = rng.uniform(0.045, 0.075)
    distance = draw.blob(
        rng,
        n,
        _spot(part, rng, BORE + 0.10, FLATS - 0.04),
        radius,
        rough=0.12,
        stretch=rng.uniform(1.0, 1.5),
    )
    alpha = draw.inside(distance, n, soft=2) * part.known["face"]
    bowl = np.clip(-distance / radius, 0, 1) ** 0.7
    lip = np.exp(-((distance / 0.016) ** 2))
    height = part.height + part.known["face"] * (0.010 * lip - rng.uniform(0.028, 0.042) * bowl)
    albedo = draw.mix(part.albedo, part.known["steel"] * 0.85, 0.8 * alpha)
    sheen = part.sheen * (1 - 0.8 * alpha)
    reach = np.maximum(alpha, np.clip(lip * 1.2, 0, 1)) * part.known["face"]
    return part.changed(height=height.astype(np.float32), albedo=albedo, sheen=sheen), reach


def chip(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A piece of the outer edge is gone: table in the gap, a rough break beside it."""
    n, known = part.n, part.known
    angle = rng.uniform(0, 2 * np.pi)
    fold = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    edge = FLATS / np.cos(fold) * rng.uniform(0.97, 1.02)
    centre = known["frame"].to_canvas(edge * np.array([np.cos(angle), np.sin(angle)]))
    radius = rng.uniform(0.09, 0.125)
    rough = draw.clouds(rng, n, 28, octaves=3, fall=0.6)
    distance = draw.blob(rng, n, centre, radius, rough=0.2) + 0.008 * rough
    floor = TOP - 0.04 + 0.010 * rough + 0.7 * np.clip(distance, -0.08, 0)
    height, broken, gone, reach = draw.bite(part.height, floor, distance, known["solid"], 0.05)
    fracture = known["steel"] * (0.60 + 0.20 * rough)
    albedo = draw.mix(part.albedo, np.clip(fracture, 0.05, 1), broken)
    albedo = draw.mix(albedo, known["ground"], gone)
    keep = (1 - broken) * (1 - gone)
    changed = part.changed(
        height=height,
        albedo=albedo.astype(np.float32),
        gloss=part.gloss * keep,
        sheen=part.sheen * keep,
    )
    return changed, reach


def rust(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A corroded patch: dark, mottled, dull, slightly raised."""
    n = part.n
    mottle = draw.clouds(rng, n, 26, octaves=3, fall=0.7)
    centre = _spot(part, rng, BORE + 0.08, FLATS)
    distance = draw.blob(rng, n, centre, rng.uniform(0.065, 0.11), rough=0.25, stretch=1.2)
    distance = distance + 0.016 * mottle
    alpha = draw.inside(distance, n, soft=3) * part.known["face"]
    tone = part.known["steel"] * np.clip(rng.uniform(0.45, 0.75) + 0.22 * mottle, 0.15, 1.1)
    changed = part.changed(
        height=(part.height + alpha * (0.003 + 0.0035 * mottle)).astype(np.float32),
        albedo=draw.mix(part.albedo, tone, 0.9 * alpha).astype(np.float32),
        gloss=part.gloss * (1 - 0.95 * alpha),
        sheen=part.sheen * (1 - 0.95 * alpha),
    )
    return changed, alpha


DEFECTS = {"chip": chip, "dent": dent, "rust": rust, "scratch": scratch}
