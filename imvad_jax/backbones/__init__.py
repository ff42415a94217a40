"""Frozen feature extractors: `get(name)` returns the spec, `weights.load_weights` its variables.

A new backbone is one new file that lists its `SPECS`, and one line below.
"""

from imvad_jax.backbones import efficientnet, resnet, vgg, vit
from imvad_jax.backbones.spec import BackboneSpec
from imvad_jax.errors import choose

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        *resnet.SPECS,
        *efficientnet.SPECS,
        *vgg.SPECS,
        *vit.SPECS,
    )
}


def get(name: str) -> BackboneSpec:
    """Returns the spec of a backbone; raises UserError for an unknown name."""
    return BACKBONES[choose("--backbone", name, BACKBONES)]
