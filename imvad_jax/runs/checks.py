"""Checks of a run before it computes anything."""

from pathlib import Path

from imvad_jax import backbones
from imvad_jax.backbones.weights import check_source
from imvad_jax.data.category import CategoryData
from imvad_jax.data.pictures import find_pictures
from imvad_jax.errors import UserError
from imvad_jax.marks import is_result, own_heatmaps
from imvad_jax.methods import DetectorConfig
from imvad_jax.owned import RUN, check_directory, refuse_foreign
from imvad_jax.reporting.heatmaps import picture_names
from imvad_jax.reporting.result_files import result_path
from imvad_jax.runs import identity
from imvad_jax.runs.specs import Cell
from imvad_jax.training import checkpoint


def check_before(cell: Cell) -> None:
    """What can be said of a cell before any image is read.

    Raises:
      UserError: the directory holds another run or somebody else's files, or weights are needed
        and not there.
    """
    run_dir, wanted = cell.run_dir, cell.as_record()
    keys = ("method", "config", "dataset", "category", "seed", "holdout", "tile", "overlap")
    identity.check_same(run_dir, wanted, cell.config, keys)
    check_directory(run_dir, RUN)
    if cell.options.results_dir:
        path = Path(cell.options.results_dir) / result_path(wanted)
        refuse_foreign(path, "--results_dir: ", is_result)
    fitted = cell.checkpoint or checkpoint.has_checkpoint(run_dir)
    if cell.detector.outputs and not (fitted and not cell.weights):
        check_source(backbones.get(cell.config.backbone), cell.weights)


def make_directory(run_dir: Path) -> None:
    """Makes a run directory. Raises UserError where it cannot be written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir: {run_dir} cannot be made ({error.strerror})") from None


def check_heatmaps(run_dir: Path, data: CategoryData) -> None:
    """Raises UserError where the heat map of a test image would replace somebody else's file."""
    folder = run_dir / "heatmaps"
    own = set(own_heatmaps(folder))
    for name in picture_names(data.test_names) if folder.is_dir() else ():
        refuse_foreign(folder / name, "--workdir: ", lambda path: path in own)


def check_images(data: CategoryData, needs_test: bool = False) -> None:
    """Raises UserError where the test images give no metric, or are needed and not there."""
    if needs_test and not len(data.test):
        raise UserError(f"{data.dataset}/{data.name}: no test images to evaluate")
    if len(data.test) and not (data.labels == 0).any():
        raise UserError(
            f"{data.dataset}/{data.name}: no good test images; image metrics need both kinds "
            "(expected test/good/*)"
        )


def check_pictures(config: DetectorConfig) -> None:
    """Raises UserError where a folder of pictures that a fit would read is missing or empty."""
    for directory in filter(None, config.picture_dirs.values()):
        find_pictures(directory)
