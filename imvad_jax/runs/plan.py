"""Plans the cells of a table: every method on every category, with every seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from imvad_jax import methods, presets
from imvad_jax.backbones import BACKBONES
from imvad_jax.data.category import check_tiled
from imvad_jax.data.decode import Geometry
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.reporting.result_files import BASELINE
from imvad_jax.runs.specs import Options
from imvad_jax.runs.tasks import Task
from imvad_jax.training.loops import AUTO

# Presets by the names that `--budget` had for them.
BUDGETS = {
    "short": "smoke",
    "demo": "demo",
    "cpu": "cpu",
    "benchmark": "benchmark",
    "official": "official",
}
# Fields of Options that a table's cells take; the rest stays as it is.
_OPTIONS = ("save_predictions", "save_heatmaps", "checkpoint_every", "training_loop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRequest:
    """What a table is made of, and where it is written."""

    workdir: str
    methods: Sequence[str]  # as `choose_methods` takes them
    preset: str
    dataset: str
    categories: Sequence[str]  # that are there
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)  # each where it fits
    seeds: int = 1  # how many, from 0 on
    data_dir: str | None = None  # None: the decoded cache is used alone
    decoded_dir: str | None = None
    weights: str | None = None  # as `parse_weights` takes them
    tiling: Tiling | None = None
    reading: Reading = AS_IS
    options: Options = dataclasses.field(default_factory=Options)


def plan(request: TableRequest) -> list[Task]:
    """All cells of a table, method by method.

    Raises:
      UserError: an unknown method, a field or a tile that does not fit, or weights that are
        needed and not there.
    """
    names, weights = choose_methods(request.methods), parse_weights(request.weights)
    given, preset = request.overrides, request.preset
    overrides = {name: overrides_for(name, preset, given) for name in names}
    if unused := set(given) - {field for fields in overrides.values() for field in fields}:
        raise UserError(f"--{min(unused)}: none of the methods {', '.join(names)} has this setting")
    loop = request.options.training_loop
    if loop != AUTO and not any(map(_is_trained, names)):
        raise UserError(f"--training_loop={loop}: none of {', '.join(names)} is trained")
    planned = []
    for name in names:
        planned += _with_weights(_cells(request, name, overrides[name]), weights)
    return planned


def _cells(request: TableRequest, method: str, overrides: dict[str, str]) -> list[Task]:
    """The cells of one method, without weights."""
    config = presets.resolve(method, request.preset, overrides)
    if request.tiling:
        try:
            check_tiled(request.data_dir, Geometry.of(config))
        except UserError as error:
            raise UserError(f"{method}: {error.text}") from None
    tiles = dataclasses.asdict(request.tiling) if request.tiling else {}
    options = {name: getattr(request.options, name) for name in _OPTIONS}
    if request.options.brightness_matched:
        options["brightness_matched"] = True
    if not _is_trained(method):
        del options["training_loop"]
    return [
        Task(
            method=method, preset=request.preset, overrides=overrides, category=category,
            seed=seed, dataset=request.dataset, data_dir=request.data_dir, weights=None,
            workdir=request.workdir, decoded_dir=request.decoded_dir,
            results_dir=request.options.results_dir, options=options, **tiles,
            reading=dataclasses.asdict(request.reading),
        )
        for seed in range(request.seeds)
        for category in request.categories
    ]  # fmt: skip


def _is_trained(method: str) -> bool:
    return "gradient" in methods.get(method).detector.phases


def _with_weights(cells: Sequence[Task], weights: Mapping[str, str]) -> list[Task]:
    """The cells of one method with their weights; none are needed where all are finished."""
    if not cells:
        return []
    try:
        source = weights_for(cells[0].config, cells[0].method, weights)
    except UserError:
        if not all(task.finished for task in cells):
            raise
        source = None  # nothing of it is to be run
    return [dataclasses.replace(task, weights=source) for task in cells]


def choose_methods(wanted: Sequence[str]) -> list[str]:
    """The methods that --methods names, the baseline last. Raises UserError for a wrong name."""
    names = list(methods.METHODS) if wanted in ([], ["all"]) else wanted
    for name in names:
        methods.get(name, "--methods")
    return sorted(set(names), key=lambda name: (name == BASELINE, name))


def overrides_for(method: str, preset: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides that are fields of a method; the backbone only where it has one."""
    config = presets.resolve(method, preset, {})
    fields = {field.name for field in dataclasses.fields(config)}
    if config.backbone == "none":
        fields -= {"backbone"}
    return {name: value for name, value in overrides.items() if name in fields}


def parse_weights(text: str | None) -> dict[str, str]:
    """`--weights` as `{backbone: source}`; the key "" is for every other backbone.

    `SOURCE`, or several `BACKBONE=SOURCE` separated by commas, one of them perhaps a plain SOURCE.
    """
    found = {}
    for entry in filter(None, (text or "").split(",")):
        name, equals, source = entry.partition("=")
        backbone, source = (name, source) if equals and name in BACKBONES else ("", entry)
        if backbone in found:
            raise UserError(f"--weights={text}: more than one for {backbone or 'all backbones'}")
        found[backbone] = source
    return found


def weights_for(config: methods.DetectorConfig, method: str, weights: Mapping[str, str]):
    """Where the weights of a configuration come from; None if it takes none.

    `hub` stands for the recommended repository of each backbone.

    Raises:
      UserError: none are named, or a file is not there.
    """
    if not methods.make(method, config).outputs:
        return None
    source = weights.get(config.backbone, weights.get(""))
    hub = f"hub:{BACKBONES[config.backbone].hub}@main"
    if not source:
        raise UserError(
            f"--weights: none for {config.backbone}, which {method} uses; recommended: "
            f"--weights=hub (the standard weights of each backbone, here {hub}); otherwise "
            f"--weights={config.backbone}=FILE, or random (for tests)"
        )
    if source == "hub":
        return hub
    is_file = source != "random" and not source.startswith(("hub:", "package:"))
    if is_file and not Path(source).expanduser().is_file():
        raise UserError(f"--weights={source}: no such file of weights (for {config.backbone})")
    return source


def deal(tasks: Sequence[Task], shard: str) -> list[Task]:
    """The tasks of a shard `i/n`, i from 1: dealt out in turn, whatever is finished already.

    Raises:
      UserError: the text is no shard.
    """
    try:
        number, of = map(int, shard.split("/"))
    except ValueError:
        number, of = 0, 0
    if not 1 <= number <= of:
        raise UserError(f"--shard={shard}: expected i/n, i from 1 to n, such as 1/4")
    return list(tasks[number - 1 :: of])
