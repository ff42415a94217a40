"""Published figures of the methods on MVTec AD: the benchmark's table, papers, other libraries.

`published/benchmark_vanilla.csv` is the benchmark's vanilla table, with the heading each figure is
printed under (`printed_column`) and the category it is of (`category`; see NOTE).
`published/papers.csv` holds figures from papers, official code and other libraries, each with its
source; the benchmark's rows are left out there, as they have a file of their own.
"""

import csv
import functools
from importlib import resources

_PACKAGE = "imvad_jax.reporting"
DATASET = "mvtec_ad"  # the one all of it is about

# Methods of which the printed headings are wrong, and averages that their columns contradict.
RELABELLED = ("cfa", "csflow", "cutpaste", "fastflow", "favae", "padim", "spade", "stpm")
MISPRINTED_AVERAGES = {("patchcore", "pixel_auroc"): 0.983, ("rd4ad", "image_auroc"): 0.988}

NOTE = (
    "The benchmark's published vanilla table has its columns mixed up for eight methods: CFA, "
    "CS-Flow, CutPaste, FastFlow, FAVAE, PaDiM, SPADE and STPM. Their figures stand in the order "
    "of task numbers sorted as text (0, 1, 10, 11, ... 14, 2, ... 9) under headings in "
    "alphabetical order; what is printed under zipper is of screw, for example. They are shown "
    "here relabelled, under the category they are of. Relabelled, the eight agree with "
    "independent figures for each category (rank correlation of PaDiM .03 -> .80, of STPM "
    ".18 -> .62, of SPADE .24 -> .69); CutPaste is the least certain, and the publisher has not "
    "confirmed it. DRAEM, PatchCore and RD4AD are as printed. Averages are not affected, but two "
    "are misprints: PatchCore's pixel AUROC is printed .994 where its columns average .983, and "
    "RD4AD's image AUROC .986 where they average .988. The benchmark's code computes PRO at "
    "100 thresholds, which gives .003 to .010 less than the exact PRO computed here."
)

# What the benchmark's row of each method was made with. Its table does not say; these are from
# the benchmark's code, or from other published figures that a row is equal to.
BENCHMARK_BACKBONES = {
    "cfa": "resnet18",
    "csflow": "efficientnet_b5",
    "cutpaste": "vit_b_16",
    "draem": "unet",
    "fastflow": "resnet18",
    "favae": "vgg16",
    "padim": "resnet18",
    "patchcore": "wide_resnet50_2",
    "rd4ad": "wide_resnet50_2",
    "spade": "resnet18",
    "stpm": "resnet18",
}
BENCHMARK_BACKBONE_BASIS = {
    "draem": "no pretrained network; the row equals the official checkpoints",
    "patchcore": "the row equals the official WRN50-2 results at a 224 crop",
    "rd4ad": "the row agrees with the official WRN50-2 code",
}
_BASIS = "from the benchmark's code"

_BACKBONE_TITLES = {
    "": "backbone not stated",
    "cait": "CaiT-M48",
    "deit": "DeiT-B",
    "efficientnet_b4": "EfficientNet-B4",
    "efficientnet_b5": "EfficientNet-B5",
    "efficientnet_b5_static": "EfficientNet-B5",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "ensemble_wr101_rnext101_dn201": "ensemble of WRN101-2, ResNeXt-101, DenseNet-201",
    "none": "none",
    "resnet18": "ResNet-18",
    "resnet18_scratch_ensemble": "ensemble of ResNet-18, from scratch",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "tf_efficientnet_b5": "EfficientNet-B5",
    "unet": "own U-Net",
    "vgg": "VGG",
    "vgg16": "VGG-16",
    "vit_b_16": "ViT-B/16",
    "vit_base_patch16_224": "ViT-B/16",
    "wide_resnet50_2": "WRN50-2",
}
_METHOD_KEYS = {
    "CFA": "cfa",
    "CS-Flow": "csflow",
    "CutPaste": "cutpaste",
    "DRAEM": "draem",
    "FAVAE": "favae",
    "FastFlow": "fastflow",
    "PaDiM": "padim",
    "PatchCore": "patchcore",
    "RD4AD": "rd4ad",
    "SPADE": "spade",
    "STPM": "stpm",
}


@functools.cache
def _read(name: str) -> tuple[dict[str, str], ...]:
    text = resources.files(_PACKAGE).joinpath("published", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@functools.cache
def _benchmark() -> dict[tuple[str, str, str], float]:
    return {
        (row["method"], row["category"], row["metric"]): float(row["value"])
        for row in _read("benchmark_vanilla.csv")
    } | {(method, "average", key): value for (method, key), value in MISPRINTED_AVERAGES.items()}


def benchmark(method: str, category: str, metric: str) -> float | None:
    """The benchmark's figure of a method on a category, relabelled (see NOTE).

    Args:
      method: Key, such as `padim`.
      category: Category of MVTec AD, or `average` (misprints corrected).
      metric: `image_auroc`, `image_ap`, `pixel_auroc`, `pixel_ap` or `pixel_pro`.

    Returns:
      The figure; None where the table has none.
    """
    return _benchmark().get((method, category, metric))


def categories() -> tuple[str, ...]:
    """The fifteen categories, sorted."""
    return tuple(sorted({category for _, category, _ in _benchmark()} - {"average"}))


def benchmark_source(method: str) -> str:
    """How the benchmark's row of a method is called: relabelled or as printed."""
    return f"benchmark, {'relabelled' if method in RELABELLED else 'as printed'}"


def rows(method: str, category: str) -> list[dict]:
    """All published figures of a method on a category, the benchmark's first.

    Returns:
      `{"source", "backbone", "metric", "value"}` each; empty for what is not in the data.
    """
    found = [
        {
            "source": benchmark_source(method),
            "backbone": BENCHMARK_BACKBONES[method],
            "metric": metric,
            "value": value,
        }
        for (name, of, metric), value in _benchmark().items()
        if (name, of) == (method, category)
    ]
    found += [
        {
            "source": row["source"],
            "backbone": row["backbone"],
            "metric": row["metric"],
            "value": float(row["value"]),
        }
        for row in _read("papers.csv")
        if (_METHOD_KEYS.get(row["method"]), row["category"]) == (method, category)
    ]
    return found


def tabulate(method: str, category: str) -> list[tuple[str, str, dict[str, float]]]:
    """The same, one entry a source and backbone: `(source, backbone, {metric: value})`."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows(method, category):
        table.setdefault((row["source"], row["backbone"]), {})[row["metric"]] = row["value"]
    return [(source, backbone, metrics) for (source, backbone), metrics in table.items()]


def backbone_title(backbone: str) -> str:
    """The usual name of a backbone; one that is not known here is given back as it is."""
    return _BACKBONE_TITLES.get(backbone, backbone)


def benchmark_backbone(method: str) -> str:
    """The backbone of the benchmark's row and how that is known; `not stated` if it is not."""
    if method not in BENCHMARK_BACKBONES:
        return "not stated"
    title = backbone_title(BENCHMARK_BACKBONES[method])
    return f"{title} ({BENCHMARK_BACKBONE_BASIS.get(method, _BASIS)})"
