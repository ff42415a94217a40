"""imvad_jax: visual anomaly detection for industrial inspection in JAX/Flax.

    import imvad_jax

    print(imvad_jax.methods())
    model = imvad_jax.make("patchcore", preset="cpu", weights="hub:timm/resnet18.tv_in1k@main")
    model = model.fit("good_parts")
    model.save("detector")

Names are imported when they are first used (PEP 562): importing the package takes milliseconds, and
JAX starts with the first model. docs/api.md describes them.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_OF_API = ("make", "load", "Model", "ImagePrediction", "load_data", "fit", "score", "save")
_MODULES = ("api", "audit", "methods", "metrics")

__all__ = [
    "ImagePrediction",
    "Model",
    "UserError",
    "api",
    "audit",
    "fit",
    "load",
    "load_data",
    "make",
    "methods",
    "metrics",
    "save",
    "score",
]

if TYPE_CHECKING:  # what type checkers and editors read: they do not follow `__getattr__`
    import imvad_jax.methods as _methods
    from imvad_jax import api, audit, metrics
    from imvad_jax.api import fit, load, load_data, make, save, score
    from imvad_jax.errors import UserError
    from imvad_jax.model import ImagePrediction, Model
    from imvad_jax.presets.catalogue import Catalogue

    class _Called(type):
        def __call__(cls) -> Catalogue: ...

    class methods(metaclass=_Called):
        """Calling it lists the methods, `Catalogue`; it is the module `imvad_jax.methods`, too.

        No checker knows modules that can be called, but all know a class of which the metaclass
        says what a call gives, and in which the module's names stand.
        """

        from imvad_jax.methods import METHODS, Detector, DetectorConfig, Method, Prediction, outside

        decisive_fields = staticmethod(_methods.decisive_fields)
        get = staticmethod(_methods.get)
        make = staticmethod(_methods.make)
        with_newer_fields = staticmethod(_methods.with_newer_fields)


def _import(name: str) -> Any:
    """Imports a name of `__all__` when it is first asked for. Raises AttributeError for others."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _OF_API:
        value = getattr(importlib.import_module(f"{__name__}.api"), name)
    elif name == "UserError":
        value = importlib.import_module(f"{__name__}.errors").UserError
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # to checkers it would mean that every name is there, misspelt ones, too
    __getattr__ = _import


def _list_methods() -> "Catalogue":
    """What `imvad_jax.methods()` gives; called by that module, which knows nothing of presets."""
    return importlib.import_module(f"{__name__}.presets.catalogue").catalogue()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "importlib"})
