"""Loads the pretrained backbone of a method, and replaces layers that the weights lack."""

import dataclasses
from typing import NamedTuple

from imvad_jax import backbones, methods
from imvad_jax.backbones.weights import MissingTensorError, load_weights


class Pretrained(NamedTuple):
    """The variables of a backbone and their provenance."""

    config: methods.DetectorConfig  # as given, except for layers that the weights lack
    variables: dict | None  # collections `params` and `batch_stats`; None without a backbone
    weights: dict | None  # their `source` and `sha256`
    notes: tuple[str, ...]  # for the user


def load_pretrained(
    method: str,
    config: methods.DetectorConfig,
    weights: str | None,
    seed: int = 0,
    expected_sha256: str | None = None,
) -> Pretrained:
    """Loads the backbone that a method needs.

    Args:
      method: Name of the method.
      config: Its configuration.
      weights: Source of the weights, as for the flag `--weights`.
      seed: Seed of the weights "random".
      expected_sha256: If given, a file with another digest is refused.

    Raises:
      UserError: No weights are named, they cannot be read, or they lack a layer that cannot be
        replaced.
    """
    outputs = methods.make(method, config).outputs
    if not outputs:
        unused = weights and config.backbone != "none"
        notes = ("Trained from scratch: --weights is not used.",) if unused else ()
        return Pretrained(config, None, None, notes)
    spec = backbones.get(config.backbone)
    notes = []
    try:
        loaded = load_weights(spec, weights, outputs, seed, expected_sha256)
    except MissingTensorError:
        fallback = config.without_missing_layers()
        if fallback is None:
            raise
        changed = [
            f"{name}={value} for {getattr(config, name)}"
            for name, value in dataclasses.asdict(fallback).items()
            if value != getattr(config, name)
        ]
        config, outputs = fallback, methods.make(method, fallback).outputs
        loaded = load_weights(spec, weights, outputs, seed, expected_sha256)
        notes.append(f"The weights lack a layer that this method uses; taken instead: {changed[0]}")
    notes.extend(loaded.notes)
    if loaded.source == "random":
        notes.append("RANDOM BACKBONE WEIGHTS: these figures mean nothing.")
    about = {"source": loaded.source, "sha256": loaded.sha256}
    return Pretrained(config, loaded.variables, about, tuple(notes))
