"""The fields of a model, and what follows from them."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

from imvad_jax import methods
from imvad_jax.audit.ranges import Ranges
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration
from imvad_jax.training.parallel import Parallel, choose_devices
from imvad_jax.training.score import Scorer


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class State:
    """The fields of a `Model`, whose docstring describes them."""

    method: str
    detector: methods.Detector
    variables: Mapping[str, Any]
    preset: str = ""
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    weights: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()
    fitted: bool = False
    fitted_on: int = 0
    tiling: Tiling | None = None
    reader: Reader = EVERY_DEPTH
    calibration: Calibration | None = None
    ranges: Ranges | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parallel: Parallel | None = None

    def __repr__(self) -> str:
        parts = [self.title, self.preset and f"preset {self.preset}"]
        parts += [self.config.backbone if self.config.backbone != "none" else ""]
        parts += [f"{self.geometry.crop} px", self.tiling and f"tiles of {self.tiling.tile} px"]
        count = f" on {self.fitted_on} image{'s' * (self.fitted_on != 1)}" if self.fitted_on else ""
        parts += [f"fitted{count}" if self.fitted else "not fitted"]
        if self.fitted:
            threshold = self.calibration and f"{self.calibration.image.threshold:.6g}"
            parts += [f"threshold {threshold}" if threshold else "no threshold"]
        return f"Model({', '.join(filter(None, parts))})"

    @property
    def title(self) -> str:
        """Title of the method, as in tables."""
        return methods.get(self.method).title

    @property
    def config(self) -> methods.DetectorConfig:
        """The settings of the method."""
        return self.detector.config

    @property
    def geometry(self) -> Geometry:
        """How an image of any size is resized and cropped to the input size."""
        return Geometry.of(self.config)

    @property
    def input_size(self) -> int:
        """Height and width of the input images, in pixels."""
        return self.config.input_size

    def with_fields(self, **changes) -> Self:
        """Returns the model with fields of its configuration replaced."""
        config = dataclasses.replace(self.config, **changes)
        return dataclasses.replace(self, detector=self.detector.clone(config=config))

    @functools.cached_property
    def devices(self) -> Parallel:
        """The devices that the model uses."""
        return self.parallel or choose_devices(0)

    @functools.cached_property
    def scorer(self) -> Scorer:
        """The fitted detector, copied to its devices on first use.

        Raises:
          UserError: The model is not fitted.
        """
        self._require_fitted()
        return Scorer(self.detector, self.variables, self.devices)

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise UserError("model: it is not fitted yet; call fit first")

    def _require_unfitted(self) -> None:
        if self.fitted:
            raise UserError("model: it is fitted already; make a new one to fit anew")
