"""The methods. A new one is one new file and one line in METHODS.

A method of another package is named `package.module:Class` and needs no line (`outside.py`).
"""

import dataclasses
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import imvad_jax
from imvad_jax.errors import choose
from imvad_jax.methods import (
    cfa,
    csflow,
    cutpaste,
    draem,
    fastflow,
    favae,
    outside,
    padim,
    patchcore,
    raw_color,
    rd4ad,
    spade,
    stpm,
)
from imvad_jax.methods.base import Detector, DetectorConfig, Method, Prediction

METHODS: dict[str, Method] = {
    "cfa": Method("CFA", cfa.CFA, cfa.CFAConfig),
    "csflow": Method("CS-Flow", csflow.CSFlow, csflow.CSFlowConfig),
    "cutpaste": Method("CutPaste", cutpaste.CutPaste, cutpaste.CutPasteConfig),
    "draem": Method("DRAEM", draem.DRAEM, draem.DRAEMConfig),
    "fastflow": Method("FastFlow", fastflow.FastFlow, fastflow.FastFlowConfig),
    "favae": Method("FAVAE", favae.FAVAE, favae.FAVAEConfig),
    "padim": Method("PaDiM", padim.PaDiM, padim.PaDiMConfig),
    "patchcore": Method("PatchCore", patchcore.PatchCore, patchcore.PatchCoreConfig),
    "raw_color": Method("raw colour (baseline)", raw_color.RawColor, raw_color.RawColorConfig),
    "rd4ad": Method("RD4AD", rd4ad.RD4AD, rd4ad.RD4ADConfig),
    "spade": Method("SPADE", spade.SPADE, spade.SPADEConfig),
    "stpm": Method("STPM", stpm.STPM, stpm.STPMConfig),
}  # fmt: skip


def get(name: str, flag: str = "--method") -> Method:
    """The method called `name`: one of METHODS, or `package.module:Class` of another package.

    Raises:
      UserError: there is none; gives the nearest valid name, or what the other package lacks.
    """
    if outside.is_outside(name):
        return outside.load(name, flag)
    return METHODS[choose(flag, name, METHODS)]


def make(name: str, config: DetectorConfig | None = None) -> Detector:
    """A detector, unfitted: a linen module of the method's default (official) configuration."""
    method = get(name)
    return method.detector(config or method.config())


def with_newer_fields(record: dict) -> dict:
    """A stored record of a run that has, in its `config` too, the fields that were added since.

    A field is only ever added with a default that gives the figures of before; for `convolution`,
    which is another by now, that one is put. Nothing is imported: the record of a method of another
    package gets them where that method is in use.
    """
    record = {"tile": 0, "overlap": 0} | record
    name = str(record.get("method"))
    method = METHODS.get(name) or outside.loaded(name)
    if method is None or not isinstance(record.get("config"), dict):
        return record
    defaults = dataclasses.asdict(method.config()) | {"convolution": "xla"}
    return record | {"config": defaults | record["config"]}


# Fields of a configuration that change where or how something is computed or kept, and no result
# but by rounding.
WITHOUT_EFFECT = ("cache_features", "shard_bank", "convolution")


def decisive_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored `config` that results depend on."""
    return {name: value for name, value in config.items() if name not in WITHOUT_EFFECT}


class _CallableModule(ModuleType):
    """`imvad_jax.methods()` lists the methods, and `imvad_jax.methods` is this module as well."""

    def __call__(self):
        """The methods by name, with titles and presets; it prints as a table."""
        return imvad_jax._list_methods()


# An import of this module puts it into the package under its name, over whatever stood there: so
# what is called has to be the module itself, which Python allows by another class.
sys.modules[__name__].__class__ = _CallableModule


__all__ = [
    "METHODS",
    "Detector",
    "DetectorConfig",
    "Method",
    "Prediction",
    "decisive_fields",
    "get",
    "make",
    "with_newer_fields",
]
