"""Methods of other packages, named `package.module:Class`.

Such a name can be used wherever the name of a registered method can: in flags, in Python, and in
the record of a run. Loading the run imports the class.
"""

import dataclasses
import difflib
import importlib
import keyword
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType

from imvad_jax.errors import UserError
from imvad_jax.methods.base import Config, Detector, DetectorConfig, Method

# Methods of the contract that were renamed: what they were called, and what they are called now. A
# class that still defines the old name would never be asked. To be extended with each renaming.
OLD_NAMES: dict[str, str] = {
    "close": "flush",
    "frozen": "frozen_features",
    "shared_out": "sharded",
    "without_padding": "trim_memory",
}

# What is called or read of a detector, and so what a class may mean to define.
HOOKS = (
    "accumulate", "finalize", "flush", "frozen_features", "init_accumulator", "init_memory",
    "init_parameters", "loss", "memory_estimate", "outputs", "phases", "presets", "sharded",
    "start", "title", "trim_memory",
)  # fmt: skip
_OF_PHASE = {
    "statistics": ("init_accumulator", "accumulate", "finalize"),
    "gradient": ("loss",),
}
_ALIKE = 0.85  # from this similarity on a name is taken for a misspelt one

_found: dict[str, Method] = {}


def is_outside(name: str) -> bool:
    """Whether a name is one of a method in another package."""
    return ":" in name


def loaded(name: str) -> Method | None:
    """The method, if it was loaded before; nothing is imported."""
    return _found.get(name)


def load(name: str, flag: str = "--method") -> Method:
    """The method `package.module:Class`, whose module is imported.

    Raises:
      UserError: no such module or class, or the class is no complete method; says what is missing.
    """
    if name not in _found:
        try:
            _found[name] = _load(name)
        except UserError as error:
            raise UserError(f"{flag}={name}: {error.text}") from None
    return _found[name]


def _load(name: str) -> Method:
    module_name, _, attribute = name.partition(":")
    parts = [*module_name.split("."), attribute]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise UserError("expected package.module:Class, such as my_parts.edges:EdgeDetector")
    module = _import(module_name)
    if not hasattr(module, attribute):
        there = [key for key, value in vars(module).items() if _is_detector(value)]
        found = f"; the detectors there: {', '.join(sorted(there))}" if there else ""
        raise UserError(f"module {module_name} has no '{attribute}'{found}")
    detector = getattr(module, attribute)
    if not _is_detector(detector):
        raise UserError(f"'{attribute}' is no subclass of imvad_jax.methods.Detector")
    check(detector)
    return Method(detector.title or attribute, detector, config_type(detector))


def _is_detector(value) -> bool:
    return isinstance(value, type) and issubclass(value, Detector) and value is not Detector


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"there is no module {error.name}; install its package, or name the folder that "
                "holds it in the environment variable PYTHONPATH"
            ) from None
        raise UserError(f"module {name} cannot be imported: {_in_words(error)}") from None
    except Exception as error:  # whatever the module does
        raise UserError(f"module {name} cannot be imported: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"


def check(detector: type[Detector]) -> None:
    """Raises UserError where a class does not keep the contract, as far as names tell."""
    names = _own_names(detector)
    for old, new in OLD_NAMES.items():
        if old in names:
            raise UserError(f"{detector.__name__} defines '{old}', which is called '{new}' now")
    for name in sorted(names - set(HOOKS)):
        near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=_ALIKE)
        if near and near[0] not in names and not hasattr(Detector, name):
            raise UserError(
                f"{detector.__name__} defines '{name}', which nothing calls; is '{near[0]}' meant?"
            )
    phases = detector.phases
    if not isinstance(phases, tuple) or not phases or not set(phases) <= set(_OF_PHASE):
        raise UserError(
            f"{detector.__name__}.phases is {phases!r}; expected a tuple of {', '.join(_OF_PHASE)}"
        )
    wanted = ["__call__", *(name for phase in phases for name in _OF_PHASE[phase])]
    missing = [name for name in (*wanted, "memory_estimate") if name not in names]
    if missing:
        raise UserError(
            f"{detector.__name__} with the phases {', '.join(phases)} does not define "
            f"{', '.join(missing)}"
        )
    kind = config_type(detector)
    presets = detector.presets
    if not isinstance(presets, Mapping) or any(type(p) is not kind for p in presets.values()):
        raise UserError(f"{detector.__name__}.presets: expected {kind.__name__} by name")


def _own_names(detector: type[Detector]) -> set[str]:
    """What a class and its bases below `Detector` define, without what is private."""
    kinds = detector.__mro__[: detector.__mro__.index(Detector)]
    names = {name for kind in kinds for name in vars(kind)}
    return {name for name in names if name == "__call__" or not name.startswith("_")}


def config_type(detector: type[Detector]) -> type[DetectorConfig]:
    """What a class annotates its field `config` with.

    Raises:
      UserError: that is no frozen dataclass that derives from `DetectorConfig`, all of whose fields
        have defaults.
    """
    owner, kind = next(
        (base, vars(base)["__annotations__"]["config"])
        for base in detector.__mro__
        if "config" in vars(base).get("__annotations__", {})
    )
    if isinstance(kind, str):  # from __future__ import annotations
        kind = sys.modules[owner.__module__]
        for part in vars(owner)["__annotations__"]["config"].strip("'\"").split("."):
            kind = getattr(kind, part, None)
    if kind is Config:  # the class has no configuration of its own
        kind = DetectorConfig
    where = f"{detector.__name__}.config"
    if not (isinstance(kind, type) and issubclass(kind, DetectorConfig)):
        raise UserError(
            f"{where}: expected the annotation `config: SomeConfig`, a subclass of "
            "imvad_jax.methods.DetectorConfig"
        )
    made = kind.__dataclass_params__  # pyright: ignore[reportAttributeAccessIssue]
    if not made.frozen or kind.__hash__ is None:
        raise UserError(f"{where}: {kind.__name__} must be a dataclass(frozen=True)")
    fields = dataclasses.fields(kind)
    unset = [
        field.name for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if unset:
        raise UserError(f"{where}: no default in {kind.__name__} for {', '.join(unset)}")
    return kind
