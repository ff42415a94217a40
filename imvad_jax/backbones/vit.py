"""Vision transformer ViT-B/16 (Dosovitskiy et al., ICLR 2021), without its classifier.

Pre-norm blocks, exact GELU, LayerNorm with eps 1e-6. The position embedding is that of 224 pixels
and is not resampled. Images are normalised to [-1, 1], as Google's checkpoints need them: AugReg,
and `hub:timm/vit_base_patch16_224.sam_in1k@main`, trained with sharpness-aware minimisation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.backbones.spec import BackboneSpec, Tap, check_call
from imvad_jax.errors import UserError
from imvad_jax.layers.conv import Conv

MEAN = STD = 0.5
SIZE = 224
OUTPUTS = ("tokens", "cls", "tokens_mean")


class PatchEmbed(nn.Module):
    """One linear map of every patch, side by side: `[B, H, W, 3]` to `[B, h, w, D]`."""

    width: int
    patch: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.patch, self.patch)
        return Conv(self.width, window, window, padding=0, dtype=self.dtype, name="proj")(x)


class Attention(nn.Module):
    """Multi-head self-attention of tokens `[B, N, D]`."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, count, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = (qkv[:, :, part] for part in range(3))
        x = jax.nn.dot_product_attention(query, key, value)
        return nn.Dense(width, dtype=self.dtype, name="proj")(x.reshape(batch, count, width))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them, four times wider inside."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="fc1")(x), approximate=False)
        return nn.Dense(width, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and around a shortcut."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        x = x + Attention(self.heads, self.dtype, name="attn")(norm(name="norm1")(x))
        return x + MLP(self.dtype, name="mlp")(norm(name="norm2")(x))


class ViT(nn.Module):
    """A vision transformer that returns the tokens after its last norm."""

    width: int
    depth: int
    heads: int
    patch: int
    size: int = SIZE
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, outputs: Sequence[str], train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns the named features of `images` `[B, 224, 224, 3]`, RGB in [0, 1].

        `tokens` `[B, 14, 14, D]` are those of the patches as a map, `cls` `[B, D]` is the class
        token, `tokens_mean` `[B, D]` the mean over patches and class token; all after the last
        norm. `train` changes nothing: there is no dropout, as in timm. Raises UserError for other
        shapes, sizes or names.
        """
        check_call(images, outputs, OUTPUTS)
        if images.shape[1:3] != (self.size, self.size):
            raise UserError(
                f"backbone: images are {images.shape[1]} x {images.shape[2]} pixels, expected "
                f"{self.size} x {self.size}, the size of the transformer's position embedding; set "
                f"--image_size={self.size} --crop_size=0, or crop to it"
            )
        batch, side, small = len(images), self.size // self.patch, nn.initializers.normal(0.02)
        x = ((images - MEAN) / STD).astype(self.dtype)
        x = PatchEmbed(self.width, self.patch, self.dtype, name="patch_embed")(x)
        token = self.param("cls_token", small, (1, 1, self.width))
        position = self.param("pos_embed", small, (1, side**2 + 1, self.width))
        token = jnp.broadcast_to(token.astype(x.dtype), (batch, 1, self.width))
        x = jnp.concatenate([token, x.reshape(batch, side**2, self.width)], 1)
        x += position.astype(x.dtype)
        for index in range(self.depth):
            x = Block(self.heads, self.dtype, name=f"blocks_{index}")(x)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        found = {
            "tokens": x[:, 1:].reshape(batch, side, side, self.width),
            "cls": x[:, 0],
            "tokens_mean": x.mean(axis=1),
        }
        return {name: found[name] for name in outputs}


def spec(name: str, hub: str, *, width: int, depth: int, heads: int, patch: int) -> BackboneSpec:
    """Returns the spec of one vision transformer for images of 224 pixels."""
    return BackboneSpec(
        name=name,
        hub=hub,
        factory=partial(ViT, width=width, depth=depth, heads=heads, patch=patch),
        taps=(
            Tap("tokens", width, patch),
            Tap("cls", width, None),
            Tap("tokens_mean", width, None),
        ),
        input_size=SIZE,
    )


SPECS = (
    spec(
        "vit_base_patch16_224",
        "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        width=768,
        depth=12,
        heads=12,
        patch=16,
    ),
)
