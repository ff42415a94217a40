"""Our five metrics against scikit-learn and a plain PRO, in turn on the same scores and maps.

Both get them as the detector gives them, in host memory. The PRO is what the benchmark's code
computes (100 thresholds), written plainly; ours is exact, so its variant with 100 thresholds is
what the figures are compared with.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from imvad_jax.benchmarks.measure import Samples, measure, summary
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.data.category import CategoryData
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.training.score import score

DRAWN_IMAGES = 160  # as many as a large category of MVTec AD has to test
PRO_LIMIT = 0.3
THRESHOLDS = 100
IMAGE, PIXEL, PRO = "scikit-learn, image", "scikit-learn, pixel", "PRO code"
OURS_IMAGE, OURS_PIXEL = "ours, image", "ours, pixel"


class Evaluated(NamedTuple):
    """What metrics are computed from: N test images."""

    scores: np.ndarray  # float32 [N]
    labels: np.ndarray  # 0 or 1 [N]
    maps: np.ndarray | None  # float32 [N, H, W]
    masks: np.ndarray | None  # bool [N, H, W]; None, as maps, where there are no pixel metrics


def drawn(count: int, size: int, seed: int) -> Evaluated:
    """Smooth noise that is higher within random blobs; a quarter of the images is good."""
    rng = np.random.default_rng(seed)

    def blurred(share: float) -> np.ndarray:
        noise = rng.standard_normal((size, size), dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, share * size)
        return noise / noise.std()

    masks = np.stack([blurred(0.05) > 1.9 for _ in range(count)])
    masks[: max(count // 4, 1)] = False
    maps = np.stack([blurred(0.015) for _ in range(count)]) + masks.astype(np.float32)
    return Evaluated(maps.max((1, 2)), masks.any((1, 2)).astype(int), maps, masks)


def scored(subject: Subject, data: CategoryData) -> Evaluated:
    """The test images of a category as the fitted detector sees them.

    Raises:
      UserError: its test images are all good or all defective.
    """
    if len(np.unique(data.labels)) < 2:
        raise UserError(
            f"--compare=metrics: {data.dataset}/{data.name} has {len(data.labels)} test images, "
            f"{int(data.labels.sum())} of them defective; expected both kinds"
        )
    found = score(
        subject.detector, subject.variables, data.test, subject.parallel, subject.batch_size
    )
    maps, masks = found.maps, data.masks
    if maps is None or masks is None:
        return Evaluated(found.image, data.labels, None, None)
    # Of images at the size of the method all are of one shape.
    assert isinstance(maps, np.ndarray) and isinstance(masks, np.ndarray)
    if not masks.any():
        return Evaluated(found.image, data.labels, None, None)
    return Evaluated(found.image, data.labels, maps, masks)


def reference_pro(maps: np.ndarray, masks: np.ndarray) -> float:
    """AU-PRO up to a false positive rate of .3, from 100 thresholds.

    They are equidistant in rank among the scores of the good pixels; the rate is taken from the
    rank. What is detected lies strictly above; a region counts by its share that is detected.

    Args:
      maps: [N, H, W].
      masks: bool [N, H, W]; regions are 8-connected.
    """
    regions = []
    for values, mask in zip(maps, masks):
        numbers, count = cast("tuple[np.ndarray, int]", ndimage.label(mask, np.ones((3, 3))))
        regions += [np.sort(values[numbers == number]) for number in range(1, count + 1)]
    good = np.sort(maps[~masks])
    rates, overlaps = [1.0], [1.0]
    for place in np.linspace(0, len(good) - 1, THRESHOLDS).astype(int):
        missed = [np.searchsorted(r, good[place], side="right") / len(r) for r in regions]
        overlaps.append(1 - float(np.mean(missed)))
        rates.append(1 - (place + 1) / len(good))
    rates, overlaps = np.array(rates[::-1]), np.array(overlaps[::-1])
    inside = rates < PRO_LIMIT
    last = np.interp(PRO_LIMIT, rates, overlaps)
    area = np.trapezoid(np.r_[overlaps[inside], last], np.r_[rates[inside], PRO_LIMIT])
    return float(area / PRO_LIMIT)


def works(given: Evaluated, results: dict) -> dict[str, Callable[[int], None]]:
    """A call for each of the works, which puts its figures into `results`."""

    def image():
        return {
            "image_auroc": roc_auc_score(given.labels, given.scores),
            "image_ap": average_precision_score(given.labels, given.scores),
        }

    def pixel(maps: np.ndarray, masks: np.ndarray):
        labels, values = masks.ravel(), maps.ravel()
        return {
            "pixel_auroc": roc_auc_score(labels, values),
            "pixel_ap": average_precision_score(labels, values),
        }

    def repeated(name: str, work: Callable[[], dict]) -> Callable[[int], None]:
        def call(count):
            for _ in range(count):
                results[name] = work()

        return call

    found = {OURS_IMAGE: lambda: image_metrics(given.scores, given.labels), IMAGE: image}
    maps, masks = given.maps, given.masks
    if maps is not None and masks is not None:
        found |= {
            OURS_PIXEL: lambda: pixel_metrics(maps, masks),
            PIXEL: lambda: pixel(maps, masks),
            PRO: lambda: {"pixel_pro_100": reference_pro(maps, masks)},
        }
    return {name: repeated(name, work) for name, work in found.items()}


def compared(samples: Mapping[str, Samples], differences: Mapping[str, float]) -> dict:
    """The rows: all of it, and what each of theirs takes beside the call of ours that holds it."""

    def seconds(*names: str) -> dict:
        return summary([sum(repeat) for repeat in zip(*(samples[name].wall for name in names))])

    def row(work: str, against: str, ours: tuple, theirs: tuple, figures: tuple) -> dict:
        ours_s, theirs_s = seconds(*ours), seconds(*theirs)
        return {
            "work": work, "against": against, "ours_s": ours_s, "theirs_s": theirs_s,
            "ratio": theirs_s["median"] / ours_s["median"],
            "difference": max(differences[key] for key in figures),
        }  # fmt: skip

    image = ("image_auroc", "image_ap")
    parts = {"image": row("image metrics", "scikit-learn", (OURS_IMAGE,), (IMAGE,), image)}
    if PIXEL not in samples:
        return parts
    pixel = ("pixel_auroc", "pixel_ap")
    ours, theirs = (OURS_IMAGE, OURS_PIXEL), (IMAGE, PIXEL, PRO)
    every = row("five metrics", "scikit-learn and PRO code", ours, theirs, tuple(differences))
    beside = "three pixel metrics"
    return {
        "all": every,
        **parts,
        "pixel": row(beside, "scikit-learn, the two it has", (OURS_PIXEL,), (PIXEL,), pixel),
        "pro": row(beside, "PRO code alone", (OURS_PIXEL,), (PRO,), ("pixel_pro_100",)),
    }


def compare(subject: Subject, data: CategoryData | None) -> dict:
    """`{images, size, images_from, parts, metrics}`: seconds, and each figure of both.

    Without `data` the maps are drawn. `metrics` is `{key: {ours, theirs, difference}}`; PRO stands
    there exact (theirs is None) and, as `pixel_pro_100`, with the thresholds of the reference.

    Raises:
      UserError: as `scored`.
    """
    if data is None:
        given = drawn(DRAWN_IMAGES, subject.detector.config.input_size, subject.seed)
    else:
        given = scored(subject, data)
    results: dict[str, dict] = {}
    samples = measure(works(given, results), subject.options.repeats)
    ours, theirs = dict(results[OURS_IMAGE]), dict(results[IMAGE])
    if given.maps is not None and given.masks is not None:
        ours |= pixel_metrics(given.maps, given.masks, benchmark_pro=True)
        theirs |= results[PIXEL] | results[PRO]
    metrics = {
        key: {"ours": value, "theirs": theirs.get(key), "difference": None}
        for key, value in ours.items()
    }
    differences = {key: abs(ours[key] - value) for key, value in theirs.items()}
    for key, value in differences.items():
        metrics[key]["difference"] = value
    return {
        "images": len(given.labels),
        "size": None if given.maps is None else given.maps.shape[1],
        "images_from": f"{data.dataset}/{data.name}" if data else "drawn",
        "parts": compared(samples, differences),
        "metrics": metrics,
    }
