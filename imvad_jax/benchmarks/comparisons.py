"""The comparisons with other implementations, by name: PyTorch, ONNX Runtime, anomalib, metrics."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from imvad_jax.benchmarks import anomalib_plan, anomalib_processes, compare_anomalib
from imvad_jax.benchmarks.images import Source, load_category
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError, choose, say
from imvad_jax.methods import DetectorConfig
from imvad_jax.methods.base import Progress
from imvad_jax.model import Model
from imvad_jax.progress import silent_progress

Methods = Mapping[str, tuple[DetectorConfig, Mapping[str, str]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Which are made, and what they need."""

    names: Sequence[str] = ()
    source: Source = dataclasses.field(default_factory=Source)
    weights: str = "random"
    workdir: Path = Path()
    anomalib_python: str | None = None  # of an environment that has anomalib
    process_repeats: int = 3
    device_flags: tuple[str, ...] = ()  # for the processes of imvad run

    def check(self, methods: Methods) -> None:
        """Raises UserError for an unknown name, or where one is not installed or lacks its data.

        `methods` are those to compare, with configuration and overrides.
        """
        checks = {
            "torch": _check_torch, "torch_steps": _check_torch, "onnx": _check_onnx,
            "anomalib": lambda: self._check_anomalib(methods), "metrics": lambda: None,
        }  # fmt: skip
        for name in self.names:
            checks[choose("--compare", name, checks)]()

    def of(
        self, model: Model, log: Callable[[str], object] = say,
        progress: Progress = silent_progress,
    ) -> dict[str, Callable[[Subject], dict]]:  # fmt: skip
        """What measures the work of a model, by name."""
        found = {
            "torch": _with_torch,
            "torch_steps": _steps_with_torch,
            "onnx": partial(_with_onnx, model),
            "anomalib": partial(self._with_anomalib, model, log, progress),
            "metrics": self._with_metrics,
        }
        return {name: found[name] for name in self.names}

    def _check_anomalib(self, methods: Methods) -> None:
        source = self.source
        if not source.data_dir or not source.category:
            raise UserError(
                "--compare=anomalib: whole processes read files; name them by --data_dir, "
                "--category"
            )
        if source.dataset != "mvtec_ad":
            raise UserError(
                f"--compare=anomalib: --dataset={source.dataset} is not compared; expected "
                "mvtec_ad, or a directory laid out as it"
            )
        anomalib_plan.check_epochs(methods)
        anomalib_plan.check_weights(self.weights)
        anomalib_processes.find_anomalib(self.anomalib_python)

    def _with_anomalib(
        self, model: Model, log: Callable[[str], object], progress: Progress, subject: Subject
    ) -> dict:
        source, python = self.source, self.anomalib_python
        assert python and source.data_dir and source.category  # `check` was called
        request = anomalib_processes.Request(
            python=python, method=model.method, preset=model.preset,
            overrides=model.overrides, data_dir=source.data_dir,
            category=source.category, weights=self.weights, seed=model.seed,
            device_flags=self.device_flags, workdir=self.workdir, repeats=self.process_repeats,
        )  # fmt: skip
        return compare_anomalib.compare(subject, request, log, progress)

    def _with_metrics(self, subject: Subject) -> dict:
        """scikit-learn is imported only now, after the peak memory is read."""
        from imvad_jax.benchmarks import compare_metrics

        data = None
        if self.source.data_dir:
            data = load_category(self.source, Geometry.of(subject.detector.config))
        return compare_metrics.compare(subject, data)


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("--compare: PyTorch is not installed; pip install torch==2.13.0")


def _with_torch(subject: Subject) -> dict:
    """PyTorch is imported only now, after the peak memory is read."""
    from imvad_jax.benchmarks import compare_torch

    return compare_torch.compare(subject)


def _steps_with_torch(subject: Subject) -> dict:
    """As `_with_torch`, of training steps."""
    from imvad_jax.benchmarks import compare_torch_steps

    return compare_torch_steps.compare(subject)


def _check_onnx() -> None:
    from imvad_jax.benchmarks import compare_onnx

    compare_onnx.check_installed()


def _with_onnx(model: Model, subject: Subject) -> dict:
    """The exporters are imported only now, after the peak memory is read."""
    from imvad_jax.benchmarks import compare_onnx
    from imvad_jax.export.whole import whole_of

    fitted = dataclasses.replace(
        model, detector=subject.detector, variables=subject.variables, fitted=True
    )
    return compare_onnx.compare(subject, whole_of(fitted))
