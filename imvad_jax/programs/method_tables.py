"""The tables of a method's page: its presets, and what was measured of them."""

from imvad_jax import presets
from imvad_jax.reporting import published
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.text_table import Form, format_rows

# What each preset is for; those that only one method has are said there.
MEANT_FOR = {
    "official": "the values of paper and official code",
    "benchmark": "the variant behind the published table",
    "cpu": "two cores",
    "demo": "`imvad demo` and the drawn parts",
    "smoke": "tests",
}
# What has to be known of `reached_table`.
REACHED = (
    "Means over seeds, after the last epoch. A preset without a row was not measured on real data "
    "here. `published`: the benchmark's table, for the eight methods whose columns it mixes up "
    "relabelled (RESULTS.md); its PRO is .003 to .010 lower by its code."
)


def presets_table(name: str) -> str:
    """The presets: what each is for, and what decides how long it takes."""
    rows = []
    for preset, config in presets.of(name).items():
        size, crop = config.image_size, config.crop_size
        rows.append(
            [
                f"`{preset}`",
                MEANT_FOR.get(preset, "see its file"),
                published.backbone_title(config.backbone),
                f"{size} > {crop}" if crop and crop != size else str(size),
                str(getattr(config, "epochs", "-")),
            ]
        )
    head = ("preset", "meant for", "backbone", "pixels", "epochs")
    return format_rows(head, rows, Form.COMPACT, left=3, cell=str)


def reached_table(name: str) -> str:
    """The figures of each preset that was measured, and the published ones beside them."""
    rows, categories = [], {}
    for preset in presets.of(name):
        for row in presets.reached(name, preset):
            settings = [f"`{preset}`", *(f"{k}={v}" for k, v in sorted(row["overrides"].items()))]
            settings += [f"before a change of {field}" for field in row["changed_since"]]
            where = f"{row['dataset']} {row['category']}"
            figures = [format_value(row["metrics"][metric.key]) for metric in METRICS]
            rows.append([", ".join(settings), where, str(len(row["seeds"])), *figures])
            if row["dataset"] == published.DATASET:
                categories[row["category"]] = None
    for category in categories:
        values = [published.benchmark(name, category, metric.key) for metric in METRICS]
        if any(value is not None for value in values):
            title = published.backbone_title(published.BENCHMARK_BACKBONES[name])
            label = f"published ({title})"
            where = f"{published.DATASET} {category}"
            rows.append([label, where, "", *map(format_value, values)])
    head = ("preset", "category", "seeds", *(metric.label for metric in METRICS))
    return format_rows(head, rows, Form.COMPACT, left=2, cell=str)
