"""Twill cloth in changing dyes: a texture, in colour."""

import numpy as np

from imvad_jax.data.demo import primitives as draw
from imvad_jax.data.demo.scene import Part, lamp

YARNS = 38  # across the canvas: about 7 pixels each at 256
_DYES = np.array(
    [[0.10, 0.17, 0.33], [0.30, 0.33, 0.36], [0.42, 0.34, 0.22], [0.20, 0.28, 0.20]], np.float32
)


def build(rng: np.random.Generator, n: int) -> Part:
    u, v, frame = draw.pose(rng, n, turn=0.10, shift=0.2, zoom=0.05)
    pull = 0.012  # cloth never lies quite straight
    u = (u + pull * draw.clouds(rng, n, 4)) * np.float32(YARNS / 2)
    v = (v + pull * draw.clouds(rng, n, 4)) * np.float32(YARNS / 2)
    # Yarns are uneven: each has its own place, thickness and shade, changing along its length.
    uneven = {
        "warp_shade": rng.normal(1.0, 0.09, 4 * YARNS).astype(np.float32),
        "weft_shade": rng.normal(1.0, 0.09, 4 * YARNS).astype(np.float32),
        "warp_width": rng.normal(1.0, 0.07, 4 * YARNS).astype(np.float32),
        "weft_width": rng.normal(1.0, 0.07, 4 * YARNS).astype(np.float32),
    }
    dye = draw.blend(rng, _DYES, 0.8) * np.float32(np.exp(rng.normal(0, 0.2)))
    pale = np.clip(dye * rng.uniform(1.3, 1.8) + rng.uniform(0.0, 0.05), 0, 0.8)
    known = {
        "u": u,
        "v": v,
        "frame": frame,
        "warp": dye,
        "weft": pale.astype(np.float32),
        "fuzz": draw.clouds(rng, n, 150, octaves=1),
        "wear": draw.clouds(rng, n, 3, octaves=3),
        **uneven,
    }
    height, albedo = _weave(known)
    light = lamp(rng, grey=False, spread=0.5, exposure=0.22, tint=0.05, slope=0.2)
    return Part(height, albedo, 0.012, 12.0, light, known=known)


def _weave(
    known: dict, phase: np.ndarray | int = 0, gone: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns height [n, n] and albedo [n, n, 3] of a 2/2 twill.

    `phase` [n, n] shifts the over-under pattern; `gone` [n, n] in {0, 1} takes warp yarns away.
    """
    u, v = known["u"], known["v"]
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu - np.float32(0.5), v - iv - np.float32(0.5)
    ku, kv = iu.astype(np.int32) % (4 * YARNS), iv.astype(np.int32) % (4 * YARNS)
    quarter = np.float32(np.pi / 2)
    # Over two, under two; every next yarn one step later: the diagonal of a twill.
    warp = np.cos((v + iu - 1 + phase) * quarter)
    weft = -np.cos((u + iv - 1 + phase) * quarter)
    warp = 0.55 * warp + np.sqrt(np.maximum(1.02 - (2 * fu / known["warp_width"][ku]) ** 2, 0))
    weft = 0.55 * weft + np.sqrt(np.maximum(1.02 - (2 * fv / known["weft_width"][kv]) ** 2, 0))
    if gone is not None:
        warp = warp - 3.0 * gone
    over = warp > weft
    top = np.maximum(warp, weft)
    # The ply of a yarn: slanted along its length.
    along, across = np.where(over, v, u), np.where(over, fu, fv)
    ply = np.sin((2.2 * along + 1.6 * across) * np.float32(2 * np.pi))
    top = top + 0.07 * ply + 0.05 * known["fuzz"]
    shade = np.where(over, known["warp_shade"][ku], known["weft_shade"][kv])
    hollow = np.clip(0.30 + 0.55 * top, 0.12, 1.1)
    shade = shade * hollow * (1 + 0.05 * known["fuzz"] + 0.05 * known["wear"])
    albedo = np.where(over[..., None], known["warp"], known["weft"]) * shade[..., None]
    return (top * np.float32(0.5 / YARNS)).astype(np.float32), albedo.astype(np.float32)


def thread(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A loose thread lies on the cloth."""
    n = part.n
    start = rng.uniform(-0.6, 0.6, 2)
    points = draw.curve(
        rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.8), bend=rng.uniform(2.5, 5.0)
    )
    width = rng.uniform(0.022, 0.034)
    alpha = draw.stroke(points, width, n)
    shadow = draw.soften(draw.stroke(points + [0.010, 0.012], width * 1.2, n), 0.006)
    round_ = draw.soften(alpha, width / 4)
    own = np.clip(part.known["weft"] * rng.uniform(0.9, 1.5) + rng.uniform(0, 0.12), 0, 0.85)
    twist = 1 + 0.16 * np.sin((draw.axes(n)[0] * 1.0 + draw.axes(n)[1] * 0.7) * 260)
    own = own * (twist * (0.55 + 0.45 * round_))[..., None]
    albedo = part.albedo * (1 - 0.45 * shadow)[..., None]
    albedo = draw.mix(albedo, own, alpha)
    height = draw.mix(part.height, 0.012 + 0.02 * round_, alpha)
    changed = part.changed(height=height, albedo=albedo.astype(np.float32))
    return changed, np.maximum(alpha, 0.7 * shadow)


def stain(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """Something spilled: darker towards the rim where it dried."""
    n = part.n
    distance = draw.blob(
        rng, n, rng.uniform(-0.65, 0.65, 2), rng.uniform(0.09, 0.19), rough=0.18, stretch=1.15
    )
    distance = distance + 0.008 * draw.clouds(rng, n, 40, octaves=2)
    alpha = draw.inside(distance, n, soft=5)
    rim = np.exp(-((distance + 0.02) ** 2) / 0.015**2) * alpha
    depth = alpha * (0.62 + 0.10 * draw.clouds(rng, n, 12)) + 0.28 * rim
    keep = np.asarray([0.62, 0.48, 0.34], np.float32) * rng.uniform(0.7, 1.15)
    factor = 1 - np.clip(depth, 0, 1)[..., None] * (1 - keep)
    return part.changed(albedo=(part.albedo * factor).astype(np.float32)), alpha


def hole(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """Yarns are cut; ends hang into the gap."""
    n = part.n
    centre = rng.uniform(-0.7, 0.7, 2)
    radius = rng.uniform(0.05, 0.10)
    distance = draw.blob(rng, n, centre, radius, rough=0.28, stretch=rng.uniform(1.0, 1.4))
    distance = distance + 0.010 * draw.clouds(rng, n, 50)
    gap = draw.inside(distance, n, soft=2)
    deep = draw.inside(distance + 0.02, n, soft=8)
    tint = np.asarray([1.05, 1.0, 0.92], np.float32)
    backing = part.known["warp"].mean() * rng.uniform(0.25, 0.6) * tint
    below = backing * (1.5 - 0.8 * deep)[..., None]
    albedo = draw.mix(part.albedo, below, gap)
    height = part.height * (1 - gap) - 0.02 * gap
    alpha = gap
    for _ in range(int(rng.integers(4, 8))):
        angle = rng.uniform(0, 2 * np.pi)
        start = centre + 1.05 * radius * np.array([np.cos(angle), np.sin(angle)])
        aim = angle + np.pi + rng.normal(0, 0.5)
        end = draw.curve(rng, start, aim, radius * rng.uniform(0.5, 1.3), bend=1.2, steps=12)
        fibre = draw.stroke(end, rng.uniform(0.007, 0.016), n) * draw.inside(distance, n, soft=1)
        colour = part.known["weft"] * rng.uniform(0.6, 1.2)
        albedo = draw.mix(albedo, colour, fibre)
    return part.changed(height=height, albedo=albedo.astype(np.float32)), alpha


def weave_fault(part: Part, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """A few yarns go over where they should go under, or are missing for a stretch."""
    u, v = part.known["u"], part.known["v"]
    across, along = int(rng.integers(2, 5)), int(rng.integers(10, 22))
    centre = rng.uniform(-0.5, 0.5, 2) * (YARNS / 2)
    first, start = np.round(centre - [across / 2, along / 2])
    missing = rng.random() < 0.5
    if missing or rng.random() < 0.5:
        region = (u >= first) & (u < first + across) & (v >= start) & (v < start + along)
    else:
        region = (v >= first) & (v < first + across) & (u >= start) & (u < start + along)
    region = region.astype(np.float32)
    if missing:
        height, albedo = _weave(part.known, gone=region)
    else:
        height, albedo = _weave(part.known, phase=2 * region)
    # The yarns at fault run tight or slack, and take the dye differently.
    albedo = albedo * (1 + rng.choice([-1, 1]) * rng.uniform(0.08, 0.2) * region)[..., None]
    albedo = albedo.astype(np.float32)
    return part.changed(height=height, albedo=albedo), region


DEFECTS = {"hole": hole, "stain": stain, "thread": thread, "weave_fault": weave_fault}
