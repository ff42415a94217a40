"""Makes an unfitted model by the name of its method."""

from imvad_jax import methods, presets
from imvad_jax.data.decode import Geometry
from imvad_jax.model.model import Model
from imvad_jax.model.pretrained import load_pretrained


def make(
    method: str,
    weights: str | None = None,
    seed: int = 0,
    preset: str | None = None,
    **fields,
) -> Model:
    """Makes an unfitted model with its pretrained weights loaded.

    If the weights lack a layer that the method can replace, the model uses the replacement, and
    `model.notes` says so.

    Args:
      method: Name of the method, such as "padim" or "patchcore", or "package.module:Class".
      weights: Source of the pretrained weights, as for the flag `--weights`: a file,
        "hub:OWNER/NAME@REVISION", "package:NAME", or "random" for tests. Methods without a
        backbone need none.
      seed: Seed of the random draws of the method, of its fit, and of the weights "random".
      preset: Named configuration to start from: "official", "benchmark", "cpu", "demo" or "smoke".
        None means the defaults of the method, which are the settings of its paper.
      fields: Settings of the method that override the preset, such as `image_size=128`
        (docs/flags.md lists them).

    Raises:
      UserError: The method, preset, field or backbone is unknown, a value has the wrong type, or
        the weights cannot be read.
    """
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in fields.items()
    }
    config = presets.resolve(method, preset, texts)
    return assemble(method, config, weights, seed, preset=preset or "", overrides=texts)


def assemble(
    method: str,
    config: methods.DetectorConfig,
    weights: str | None,
    seed: int,
    expected_sha256: str | None = None,
    **about,
) -> Model:
    """Like `make`, for a configuration; `about` sets other fields of `Model`. Raises UserError."""
    Geometry.of(config)  # refuses impossible sizes
    found = load_pretrained(method, config, weights, seed, expected_sha256)
    return Model(
        method, methods.make(method, found.config),
        {"backbone": found.variables} if found.variables else {},
        seed=seed, weights=found.weights, notes=(*found.notes, *found.config.notes), **about,
    )  # fmt: skip
