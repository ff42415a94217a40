"""The pretrained backbone of a method, and what is taken instead of a layer that it lacks."""

import dataclasses
from typing import NamedTuple

from imvad_jax import backbones, methods
from imvad_jax.backbones.weights import MissingTensorError, load_weights


class Pretrained(NamedTuple):
    """A backbone's variables and what is to be known of them."""

    config: methods.DetectorConfig  # as given, but for layers that the weights lack
    variables: dict | None  # collections `params` and `batch_stats`; None: a method without any
    weights: dict | None  # their `source` and `sha256`
    notes: tuple[str, ...]  # for the user


def load_pretrained(
    method: str,
    config: methods.DetectorConfig,
    weights: str | None,
    seed: int = 0,
    expected_sha256: str | None = None,
) -> Pretrained:
    """The backbone that a method of this configuration needs.

    Args:
      method: Its name.
      config: Its configuration.
      weights: Where they come from, as the flag `--weights`.
      seed: Seeds the weights "random".
      expected_sha256: Any other file is refused.

    Raises:
      UserError: no weights named, or they cannot be read or lack a layer that nothing replaces.
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
