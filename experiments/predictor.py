"""What experiments.predict does: a fitted detector restored, files scored, reports written."""

import contextlib
import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from experiments import settings
from imvad_jax import methods
from imvad_jax.data.decode import Geometry, Reader
from imvad_jax.data.inputs import display_names
from imvad_jax.data.listing import NotUsed
from imvad_jax.data.reading import remarks_in_words
from imvad_jax.data.stream import Decoded, decode_files, picture_batches
from imvad_jax.data.tiled import AHEAD, tile_batches
from imvad_jax.data.tiles import Tiling, assemble
from imvad_jax.errors import UserError, readable
from imvad_jax.evaluation import Calibration, calibrate
from imvad_jax.files import write_atomically
from imvad_jax.marks import MARK, own_heatmaps
from imvad_jax.owned import PREDICTION, check_directory, refuse_foreign, write_own
from imvad_jax.reporting import predictions
from imvad_jax.reporting.heatmaps import picture_names
from imvad_jax.reporting.overlay import present
from imvad_jax.reporting.progress import tqdm_progress
from imvad_jax.training import checkpoint
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score_batches


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are scored and shown."""

    threshold: float = 0.5  # of the verdict, on the scale where 0.5 is the calibrated one
    on_bad_image: str = "skip"  # or error
    batch_size: int = 0  # 0: the configuration's
    picture_size: int = 768  # longest side of the heat maps written, pixels
    page_images: int = 500  # shown on the page


class Fitted:
    """The detector of a finished run, ready to score files."""

    def __init__(
        self, run_dir: Path, record: dict, parallel: Parallel, reader: Reader | None = None
    ):
        """The files are read by `reader`; None: as those that it was fitted on."""
        self.run_dir, self.record = run_dir, record
        self.reader = reader or Reader.of_record(record)
        self.config = settings.config_of(methods.with_newer_fields(record))
        self.detector = methods.make(record["method"], self.config)
        self.variables = checkpoint.load_variables(run_dir)
        self.geometry = Geometry.of(self.config)
        self.tiling = Tiling.of_record(record)
        self.parallel = parallel

    def score(
        self,
        paths: Sequence[str],
        on_bad: Callable[[Decoded], None],
        picture_size: int,
        batch_size: int = 0,
    ) -> Iterator[tuple[Decoded, float, np.ndarray | None]]:
        """Yields file, score and map of each readable file, in order; the others go to `on_bad`."""
        batch_size = batch_size or self.config.batch_size
        if self.tiling:
            batch_size = self.parallel.batch_size(batch_size)
            tiles = self._score_tiles(paths, on_bad, picture_size, batch_size)
            yield from assemble(tiles, self.tiling)
            return
        # A single image is not scored as a batch of 32; powers of 2, so that programs are reused.
        batch_size = min(batch_size, 1 << (len(paths) - 1).bit_length())
        batch_size = self.parallel.batch_size(batch_size)
        files = decode_files(paths, self.geometry, picture_size, batch_size, reader=self.reader)
        batches = picture_batches(files, batch_size, on_bad)
        for found, batch in score_batches(self.detector, self.variables, batches, self.parallel):
            for row, file in enumerate(batch.files):
                yield file, float(found.image[row]), None if found.maps is None else found.maps[row]

    def _score_tiles(self, paths, on_bad, picture_size: int, batch_size: int):
        """Yields file, its size, number, score and map of each tile of each readable file."""
        files = decode_files(
            paths, self.geometry, picture_size, AHEAD, self.tiling, self.reader
        )
        batches = tile_batches(files, self.tiling, self.geometry, batch_size, on_bad)
        for found, batch in score_batches(self.detector, self.variables, batches, self.parallel):
            for row, (file, number) in enumerate(batch.tiles):
                tile_map = None if found.maps is None else found.maps[row]
                yield file, file.size, number, float(found.image[row]), tile_map


def read_run(run_dir: Path) -> dict:
    """The record of a finished run. Raises UserError if there is none."""
    record = settings.read_record(run_dir)
    if record is not None and checkpoint.has_checkpoint(run_dir):
        return record
    inside = sorted(p.name for p in run_dir.glob("*/") if checkpoint.has_checkpoint(p))
    if inside:
        raise UserError(
            f"--workdir={run_dir}: a run of several categories; name the directory of one: "
            f"{', '.join(inside[:8])}"
        )
    what = "the run there is not finished" if record is not None else "no run there"
    raise UserError(f"--workdir={run_dir}: {what}; expected a finished one of experiments.run")


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
    fitted: Fitted, paths: list[str], quantile: float, batch_size: int = 0
) -> Calibration:
    """Thresholds from good images. Raises UserError if one of them cannot be read."""
    names = display_names(paths)

    def refuse(file: Decoded):
        raise UserError(f"--good: {names[file.number]}: {file.error}")

    done = tqdm_progress(len(paths), "calibrate")
    scores, maxima, medians = [], [], []
    for _, score, anomaly_map in fitted.score(paths, refuse, 64, batch_size):
        scores.append(score)
        if anomaly_map is not None:
            maxima.append(anomaly_map.max())
            medians.append(np.median(anomaly_map))
        done(1)
    maps = (np.array(maxima), np.array(medians)) if maxima else (None, None)
    return calibrate(np.array(scores), names, quantile, *maps)


class Writer:
    """Draws and writes what is found of each image, by threads, and remembers a line of each."""

    def __init__(
        self,
        output: Path,
        names: list[str],
        fitted: Fitted,
        calibration: Calibration,
        options: Options,
        not_used: Sequence[NotUsed] = (),
    ):
        self.output, self.names, self.options = output, names, options
        self.fitted, self.calibration = fitted, calibration
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
        self.done = tqdm_progress(len(names), "predict")
        self._pool = ThreadPoolExecutor()
        self._pending = deque()
        # Maps of whole pictures are large.
        self._most_pending = AHEAD if fitted.tiling else 2 * fitted.config.batch_size

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
        self._pending.append((file, self._pool.submit(self._present, file, anomaly_map), score))
        if len(self._pending) > self._most_pending:
            self._receive()

    def _present(self, file: Decoded, anomaly_map: np.ndarray | None):
        found = present(
            file.picture, file.size, anomaly_map, self.calibration.pixel, self.fitted.geometry
        )
        if found.heatmap:
            path = self.output / "heatmaps" / self.heatmaps[file.number]
            write_atomically(path, lambda file: file.write(found.heatmap))
        return found

    def _receive(self) -> None:
        file, future, raw = self._pending.popleft()
        found, name = future.result(), self.names[file.number]
        score = float(self.calibration.image.normalize(raw))
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
        record = self.fitted.record
        while self._pending:
            self._receive()
        self._pool.shutdown()
        found = predictions.Predictions(
            title=record["title"],
            images=self.images,
            spool=self.spool,
            unreadable=self.unreadable,
            threshold=self.options.threshold,
            calibration=self.calibration,
            notes=[
                *_notes(record, self.fitted.geometry, self.fitted.tiling),
                *remarks_in_words(self.remarks),
            ],
            not_used=self.not_used,
            about={
                "workdir": str(self.fitted.run_dir),
                **{key: record[key] for key in ("method", "dataset", "category", "config")},
                "tiles": dataclasses.asdict(self.fitted.tiling) if self.fitted.tiling else None,
                "command": command,
            },
            finished=finished,
        )
        predictions.write_csv(self.output / "results.csv", found)
        predictions.write_page(self.output / "index.html", found, self.thumbnails.get())
        predictions.write_results_json(self.output / "results.json", found)
        return found


def _notes(record: dict, geometry: Geometry, tiling: Tiling | None) -> list[str]:
    notes = [note for note in record["notes"] if note.startswith("RANDOM")]
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


def names_of(
    paths: Sequence[str], not_used: Sequence[NotUsed]
) -> tuple[list[str], list[NotUsed]]:
    """How files are called in the results, and those that are not used under such names."""
    names = display_names([*paths, *(item.path for item in not_used)])
    others = [item._replace(path=name) for item, name in zip(not_used, names[len(paths) :])]
    return names[: len(paths)], others


def predict(
    fitted: Fitted,
    calibration: Calibration,
    paths: Sequence[str],
    output: Path,
    options: Options,
    command: str = "",
    not_used: Sequence[NotUsed] = (),
) -> predictions.Predictions:
    """Scores files and writes the results to `output`; files that are `not_used` are named there.

    Raises:
      UserError: `output` holds something else; or a file cannot be read and that is to be an error.
        What was scored before is then written, as it is whatever else ends the work.
    """
    names, others = names_of(paths, not_used)
    prepare_output(output, names)
    writer = Writer(output, names, fitted, calibration, options, others)
    scored = fitted.score(paths, writer.add_bad, options.picture_size, options.batch_size)
    try:
        for file, score, anomaly_map in scored:
            writer.add(file, score, anomaly_map)
    except BaseException:
        writer.finish(command, finished=False)
        raise
    return writer.finish(command, finished=True)
