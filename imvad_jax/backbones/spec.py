"""The specification of a backbone: its outputs, its module, its weights."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from imvad_jax.backbones import layout, prefixes
from imvad_jax.errors import UserError, choose


@dataclass(frozen=True)
class Tap:
    """One output: feature map `[B, H / stride, W / stride, channels]`, or `[B, channels]`."""

    name: str
    channels: int
    stride: int | None


def unchanged(key: str) -> str:
    """The translator of a backbone whose files all speak timm's names."""
    return key


@dataclass(frozen=True)
class BackboneSpec:
    """A registered backbone. Two specs are the same when their names are (so a spec hashes)."""

    name: str
    hub: str = field(compare=False)  # the hub repository with the weights the papers used
    factory: Callable[..., nn.Module] = field(compare=False, repr=False)
    taps: tuple[Tap, ...] = field(compare=False, repr=False)
    rename: Callable[[str], str] = field(compare=False, repr=False, default=unchanged)
    # The side in pixels of the only input it takes; None: any.
    input_size: int | None = field(compare=False, default=None)
    # Whether rows of its maps depend on rows nearby alone, by operations that know of `ops.rows`.
    local: bool = field(compare=False, default=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all taps, from shallow to deep."""
        return tuple(tap.name for tap in self.taps)

    def build(self, dtype: Any = jnp.float32) -> nn.Module:
        """Returns the module: `apply(variables, images, outputs) -> {output: features}`.

        `parent=None` keeps an enclosing linen module from adopting it. Parameters are float32
        whatever `dtype`, in which it computes.
        """
        return self.factory(dtype=dtype, parent=None)

    def channels(self, output: str) -> int:
        """Returns the channels of a tap; raises UserError if there is none of that name."""
        return self._tap(output).channels

    def stride(self, output: str) -> int:
        """Returns input pixels per feature; raises UserError for a tap that is not a map."""
        stride = self._tap(output).stride
        if stride is None:
            raise UserError(
                f"backbone {self.name}: output '{output}' is a vector and has no stride; "
                f"feature maps are {', '.join(tap.name for tap in self.taps if tap.stride)}"
            )
        return stride

    def by_rows(self, outputs: Sequence[str]) -> bool:
        """Whether devices can compute a part of the rows of these maps each (`ops.rows`)."""
        return self.local and all(self._tap(name).stride for name in outputs)

    def variables_template(self, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns the variables that `outputs` (None: every tap) need, as ShapeDtypeStructs.

        Traced, never run: `init` of a big network under jit takes half a minute to compile.
        """
        wanted = self.outputs if outputs is None else tuple(outputs)
        return jax.tree.map(lambda leaf: leaf, _template(self, wanted))

    def from_timm(
        self,
        tensors: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        source: str = "the given tensors",
    ) -> dict[str, Any]:
        """Returns the variables that `outputs` (None: every tap) need, as numpy float32.

        Args:
          tensors: arrays under timm's names (or names that `rename` translates), in PyTorch's
            layouts; a wrapper's prefix may stand before each name (see `names_in`). Only what is
            needed is looked up, so a lazy mapping reads no more than that.
          outputs: taps that the variables are for.
          source: what to call `tensors` in an error.

        Raises:
          UserError: a tensor is missing, or has the wrong shape or kind, or is not finite.
        """
        keys = self.names_in(tensors, outputs).keys
        return layout.variables_from_timm(
            self.variables_template(outputs), tensors, keys, f"{source} (for {self.name})"
        )

    def names_in(
        self, tensors: Iterable[str], outputs: Sequence[str] | None = None
    ) -> prefixes.Names:
        """Returns which names of a file stand for timm's, and the prefix that all of them have."""
        template = traverse_util.flatten_dict(self.variables_template(outputs))
        needed = [layout.timm_name(path[1:]) for path in template]
        return prefixes.find_names(tensors, self.rename, needed)

    def _tap(self, output: str) -> Tap:
        choose(f"output of backbone {self.name}", output, self.outputs)
        return next(tap for tap in self.taps if tap.name == output)


@functools.lru_cache(maxsize=64)
def _template(spec: BackboneSpec, outputs: tuple[str, ...]) -> dict[str, Any]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    size = spec.input_size or 64
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda k, x: spec.build().init(k, x, outputs=outputs), key, images)


def check_call(images: jax.Array, outputs: Sequence[str], valid: Sequence[str]) -> None:
    """Raises UserError unless `images` is float `[B, H, W, 3]` and `outputs` are among `valid`."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(
            f"backbone: images have shape {images.shape}, expected [B, H, W, 3] (RGB, channels "
            "last)"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            f"backbone: images are {images.dtype}, expected float in [0, 1]; divide by 255 first"
        )
    if isinstance(outputs, str) or not outputs:
        raise UserError(
            f"backbone: outputs is {outputs!r}, expected a non-empty sequence of names among "
            f"{', '.join(valid)}"
        )
    for output in outputs:
        choose("backbone output", output, valid)
