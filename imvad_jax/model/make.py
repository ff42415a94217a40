"""A model by the name of its method, unfitted."""

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
    """A method by its name, unfitted, with its pretrained weights loaded.

    Weights that lack a layer which the method can do without are taken all the same;
    `model.notes` says so.

    Args:
      method: A name of the registry: "padim", "patchcore" and so on, or "package.module:Class".
      weights: Where pretrained weights come from, as the flag `--weights`: a file,
        "hub:OWNER/NAME@REVISION", "package:NAME", or "random" for tests. Methods without a
        backbone need none.
      seed: Seeds the random draws of the method, its fit, and the weights "random".
      preset: The named configuration to begin with: "official", "benchmark", "cpu", "demo" or
        "smoke". None: the defaults of the method, which are the settings of its paper.
      fields: Fields of the method's configuration, over the preset: `image_size=128`
        (docs/flags.md lists them).

    Raises:
      UserError: an unknown method, preset, field or backbone, a value of the wrong type, or weights
        that cannot be read.
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
    """`make` of a configuration; `about` are further fields of `Model`. Raises UserError."""
    Geometry.of(config)  # refuses sizes that cannot be
    found = load_pretrained(method, config, weights, seed, expected_sha256)
    return Model(
        method, methods.make(method, found.config),
        {"backbone": found.variables} if found.variables else {},
        seed=seed, weights=found.weights, notes=(*found.notes, *found.config.notes), **about,
    )  # fmt: skip
