"""Files scored with a model, and the reports of them written."""

import contextlib
import dataclasses
import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from imvad_jax import locks
from imvad_jax.data.inputs import display_names
from imvad_jax.data.listing import NotUsed
from imvad_jax.data.reading import remarks_in_words
from imvad_jax.data.stream import Decoded
from imvad_jax.data.tiled import AHEAD
from imvad_jax.errors import UserError, readable
from imvad_jax.files import NotWritten, write_atomically
from imvad_jax.marks import MARK, own_heatmaps
from imvad_jax.model import Model
from imvad_jax.owned import PREDICTION, check_directory, refuse_foreign, write_own
from imvad_jax.progress import tqdm_progress
from imvad_jax.reporting import predictions
from imvad_jax.reporting.heatmaps import picture_names
from imvad_jax.reporting.overlay import present
from imvad_jax.training.limit import NO_LIMIT, Limit, limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How images are scored and shown."""

    threshold: float = 0.5  # of the verdict, on the scale where 0.5 is the calibrated one
    on_bad_image: str = "skip"  # or error
    batch_size: int = 0  # 0: the configuration's
    picture_size: int = 768  # longest side of the heat maps written, pixels
    page_images: int = 500  # shown on the page


def check_output(directory: Path, names: Sequence[str] = ()) -> list[Path]:
    """The heat maps of an earlier result in the directory; nothing is changed.

    Args:
      directory: Is to be written to; need not exist.
      names: Of the images that are to be scored, as `display_names` gives them.

    Raises:
      UserError: it holds something else, or somebody else's file lies where a heat map is to be.
    """
    check_directory(directory, PREDICTION, "--output")
    folder = directory / "heatmaps"
    if not folder.is_dir():
        return []
    own = own_heatmaps(folder)
    test = set(own).__contains__
    for name in picture_names(names, ".jpg"):
        refuse_foreign(folder / name, "--output: ", test)
    return own


def prepare_output(directory: Path, names: Sequence[str] = ()) -> None:
    """Makes the directory, or empties it of an earlier result; other files stay.

    Raises:
      UserError: as `check_output`, or it cannot be written.
    """
    earlier = check_output(directory, names)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in earlier:  # while the earlier list still names them
            path.unlink(missing_ok=True)
        # Then the mark, so that a directory left by a killed program is known as a result.
        mark = json.dumps({"program": MARK, "finished": False}) + "\n"
        write_own(directory / "results.json", lambda file: file.write(mark.encode()))
        for name in ("results.csv", "index.html"):
            (directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or somebody's files are in it
            (directory / "heatmaps").rmdir()
    except OSError as error:
        raise UserError(f"--output={directory}: cannot be written ({error.strerror})") from None


def calibrate_from(
    model: Model, paths: list[str], quantile: float, batch_size: int = 0, limit: Limit = NO_LIMIT
) -> Model:
    """The model with thresholds from good images.

    Raises:
      UserError: one cannot be read.
      Stopped: the process was told to end.
    """
    try:
        return model.calibrate(
            paths, quantile=quantile, names=display_names(paths), batch_size=batch_size,
            progress=limited(tqdm_progress, limit),
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"--good: {error.text}") from None


class Writer:
    """Draws and writes what is found of each image, by threads, and remembers a line of each."""

    def __init__(
        self,
        output: Path,
        names: list[str],
        model: Model,
        workdir: str,
        *,
        options: Options,
        not_used: Sequence[NotUsed] = (),
    ):
        self.output, self.names, self.options = output, names, options
        self.model, self.workdir = model, workdir
        self.heatmaps = picture_names(names, ".jpg")
        self.thumbnails = predictions.Thumbnails(options.page_images)
        self.images: list[predictions.Scored] = []
        self.spool = predictions.Spool()
        self.not_used = not_used
        self.unreadable = [
            (readable(item.path), f"{item.why}{': ' if item.detail else ''}{item.detail}")
            for item in not_used
            if item.picture
        ]
        self.remarks: list[tuple[str, str]] = []
        self.numbers: list[dict[str, float]] = []  # of the pictures, where ranges are known
        self.done = tqdm_progress(len(names), "predict")
        self._pool = ThreadPoolExecutor()
        self._pending = deque()
        # Maps of whole pictures are large.
        self._most_pending = AHEAD if model.tiling else 2 * model.config.batch_size

    def add_bad(self, file: Decoded) -> None:
        """Remembers a file that cannot be read. Raises UserError if it is to end the program."""
        self.unreadable.append((self.names[file.number], file.error))
        self.done(1)
        if self.options.on_bad_image == "error":
            raise UserError(f"{self.names[file.number]}: {file.error}")

    def add(self, file: Decoded, score: float, anomaly_map: np.ndarray | None) -> None:
        """Takes an image over; returns before it is written."""
        if not np.isfinite(score):
            return self.add_bad(file._replace(error=f"its score is {score}, not a number"))
        if file.remark:
            self.remarks.append((self.names[file.number], file.remark))
        if file.numbers:
            self.numbers.append(file.numbers)
        self._pending.append((file, self._pool.submit(self._present, file, anomaly_map), score))
        if len(self._pending) > self._most_pending:
            self._receive()

    def _present(self, file: Decoded, anomaly_map: np.ndarray | None):
        found = present(
            file.picture, file.size, anomaly_map, self.model.calibration.pixel, self.model.geometry
        )
        if found.heatmap:
            path = self.output / "heatmaps" / self.heatmaps[file.number]
            write_atomically(path, lambda file: file.write(found.heatmap))
        return found

    def _receive(self) -> None:
        file, future, raw = self._pending.popleft()
        found, name = future.result(), self.names[file.number]
        score = float(self.model.calibration.image.normalize(raw))
        self.thumbnails.add(name, score, found.thumbnails)
        place = box = None
        if found.regions is not None:
            place = self.spool.put(json.dumps([region.as_dict() for region in found.regions]))
            box = found.regions[0].box if found.regions else None
        self.images.append(
            predictions.Scored(
                name, score, raw, *file.size,
                found.num_regions, box, place,
                f"heatmaps/{self.heatmaps[file.number]}" if found.heatmap else None,
            )
        )  # fmt: skip
        self.done(1)

    def finish(self, command: str, finished: bool) -> predictions.Predictions:
        """Writes the reports. `finished` is False where the work was stopped early."""
        model = self.model
        while self._pending:
            self._receive()
        self._pool.shutdown()
        outside = model.ranges.compare(self.numbers) if model.ranges else None
        found = predictions.Predictions(
            title=model.title,
            images=self.images,
            spool=self.spool,
            unreadable=self.unreadable,
            threshold=self.options.threshold,
            calibration=model.calibration,
            notes=[
                *([f"WARNING: {outside}"] if outside else ()),
                *_notes(model),
                *model.calibration.notes,
                *remarks_in_words(self.remarks),
            ],
            not_used=self.not_used,
            about={
                "workdir": self.workdir,
                "method": model.method,
                "dataset": model.record.get("dataset"),
                "category": model.record.get("category"),
                "config": dataclasses.asdict(model.config),
                "tiles": dataclasses.asdict(model.tiling) if model.tiling else None,
                "command": command,
                "outside_training_range": outside and outside.as_dict(),
            },
            finished=finished,
        )
        predictions.write_csv(self.output / "results.csv", found)
        predictions.write_page(self.output / "index.html", found, self.thumbnails.get())
        predictions.write_results_json(self.output / "results.json", found)
        return found


def _notes(model: Model) -> list[str]:
    notes = [note for note in model.notes if note.startswith("RANDOM")]
    geometry, tiling = model.geometry, model.tiling
    if tiling:
        notes.append(
            f"Looked at in tiles of {tiling.tile} pixels that overlap by {tiling.overlap}; the "
            "score of an image is that of its highest tile."
        )
    if geometry.crop < geometry.size:
        share = 100 * geometry.crop / geometry.size
        notes.append(
            f"The detector looks at the middle {share:.0f} % of the width and height; what lies "
            "outside is not inspected (fit with --crop_size=0 to change that)."
        )
    return notes


def names_of(paths: Sequence[str], not_used: Sequence[NotUsed]) -> tuple[list[str], list[NotUsed]]:
    """How files are called in the results, and those that are not used under such names."""
    names = display_names([*paths, *(item.path for item in not_used)])
    others = [item._replace(path=name) for item, name in zip(not_used, names[len(paths) :])]
    return names[: len(paths)], others


def predict(
    model: Model,
    paths: Sequence[str],
    output: Path,
    options: Options,
    *,
    workdir: str = "",
    command: str = "",
    not_used: Sequence[NotUsed] = (),
    limit: Limit = NO_LIMIT,
) -> predictions.Predictions:
    """Scores files with a calibrated model and writes the results to `output`.

    Files that are `not_used` are named there, as are the model's `workdir` and the `command`.

    Raises:
      UserError: `output` holds something else, or another process writes there; or a file cannot
        be read and that is to be an error. What was scored before is then written, as it is
        whatever else ends the work.
      Stopped: the process was told to end.
    """
    names, others = names_of(paths, not_used)
    with locks.hold(output, "--output"):
        prepare_output(output, names)
        writer = Writer(output, names, model, workdir, options=options, not_used=others)
        return _score(writer, paths, command, limit)


def _score(
    writer: Writer, paths: Sequence[str], command: str, limit: Limit
) -> predictions.Predictions:
    stream = writer.model.stream(writer.options.batch_size, writer.options.picture_size)
    try:
        for file, score, anomaly_map in stream.run(paths, on_bad=writer.add_bad):
            writer.add(file, score, anomaly_map)
            if limit.ended_by_signal and file.number + 1 < len(paths):
                raise limit.stop(
                    f"stopped after {file.number + 1} of {len(paths)} images; what they gave is in "
                    f"{writer.output}; the same command begins anew"
                )
    except NotWritten:  # the reports would not be written either
        raise
    except BaseException:
        writer.finish(command, finished=False)
        raise
    return writer.finish(command, finished=True)
