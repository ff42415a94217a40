"""The history of a training: one row per epoch on disk, as a plot, and for TensorBoard."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.marks import MARK
from imvad_jax.owned import write_own

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History:
    """Figures by epoch in `run_dir/history.json`; survives a killed run.

    `images` is the number of images in an epoch, for the rate. With `tensorboard`, the same scalars
    go to `run_dir/tensorboard`.

    Raises:
      UserError: The existing file is damaged, or TensorBoard files are wanted and tensorboardX
        is not installed.
    """

    def __init__(self, run_dir: str | Path, images: int, tensorboard: bool = False):
        self._path = Path(run_dir) / "history.json"
        self._images = images
        self._last = time.perf_counter()
        self.rows = _read_rows(self._path) if self._path.is_file() else []
        self._writer = _tensorboard_writer(Path(run_dir) / "tensorboard") if tensorboard else None

    def record(self, epoch: int, metrics: dict[str, float]) -> None:
        """Adds the metrics of an epoch; rows of it or later, from before a resume, are dropped."""
        now = time.perf_counter()
        rate = {"images_per_s": round(self._images / max(now - self._last, 1e-9), 2)}
        self._last = now
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **metrics, **rate})
        text = sealed.dumps(self.rows, indent=0)
        write_own(self._path, lambda file: file.write(text.encode()))
        if self._writer:
            for name, value in (metrics | rate).items():
                self._writer.add_scalar(name, value, epoch)

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        """Draws `learning_curve.png` and closes what is open."""
        if self.rows:
            figure = learning_curve(self.rows)
            path = self._path.with_name("learning_curve.png")
            about = {"Comment": MARK}
            write_own(
                path, lambda file: figure.savefig(file, format="png", dpi=120, metadata=about)
            )
        if self._writer:
            self._writer.close()


def _read_rows(path: Path) -> list[dict]:
    try:
        rows = sealed.read(path)
        if not isinstance(rows, list):
            raise ValueError("no list")
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
                raise ValueError(f"a row without its epoch: {row!r:.60}")
            if not isinstance(row.get("loss"), int | float):
                raise ValueError(f"no loss of epoch {row['epoch']}")
        return rows
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a training history ({error}); delete it to continue without the earlier "
            "epochs"
        ) from None


def _tensorboard_writer(directory: Path):
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX: pip install 'imvad_jax[tensorboard]'"
        ) from None
    return SummaryWriter(str(directory))


def learning_curve(rows: list[dict]) -> "Figure":
    """The loss by epoch; on a logarithmic axis where all of it is positive."""
    # Here: it is slow to import, and many programs draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    losses = [row["loss"] for row in rows]
    axes.plot([row["epoch"] for row in rows], losses, color="#1d6fa5")
    if min(losses) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean loss of the epoch")
    axes.grid(alpha=0.3)
    return figure
