"""What `imvad_jax.methods()` gives: the methods by name, with their titles and presets."""

import difflib
import functools
from collections.abc import Mapping
from typing import NoReturn

from imvad_jax import methods, presets
from imvad_jax.methods.base import DetectorConfig, Method

_WITHOUT_TRAINING = ("statistics",)


class MethodInfo:
    """What is known of a method before one is made.

    Attributes:
      name: What `imvad_jax.make` takes.
      title: How tables call it.
      trained: Whether a network is trained by gradient steps; the others compute statistics of
        the good images, or keep their features, in one pass.
    """

    def __init__(self, name: str, method: Method):
        self.name, self.title = name, method.title
        self.trained = method.detector.phases != _WITHOUT_TRAINING
        self._config = method.config

    @functools.cached_property
    def presets(self) -> Mapping[str, DetectorConfig]:
        """Its named configurations, as `make(..., preset=...)` takes them."""
        return presets.of(self.name)

    @property
    def defaults(self) -> DetectorConfig:
        """The configuration without a preset."""
        return self._config()

    def __repr__(self) -> str:
        how = "trained" if self.trained else "not trained"
        return f"MethodInfo({self.name}: {self.title}, {how}, presets {', '.join(self.presets)})"


class Catalogue(dict[str, MethodInfo]):
    """The methods by name; it prints as a table.

    Raises:
      KeyError: a name that is none of them; says the nearest one.
    """

    def __missing__(self, name: str) -> NoReturn:
        near = difflib.get_close_matches(str(name), self, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise KeyError(f"no method '{name}'; {hint}valid: {', '.join(self)}")

    def __repr__(self) -> str:
        rows = [("name", "title", "trained", "presets")]
        rows += [
            (info.name, info.title, "yes" if info.trained else "no", ", ".join(info.presets))
            for info in self.values()
        ]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def catalogue() -> Catalogue:
    """All registered methods, in the order of `methods.METHODS`."""
    return Catalogue({name: MethodInfo(name, method) for name, method in methods.METHODS.items()})
