"""The convolution layer of all networks: flax's, implemented by `ops.convolution`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from imvad_jax.layers.parameters import parameter
from imvad_jax.ops import convolution, convolution_rule, rows, winograd

TRANSFORMED = "transformed"  # the collection of kernels that are fixed and ready for use
OUTPUTS = "outputs"  # in it, kernels whose outputs are shared by devices that share an image


class Conv(nn.Module):
    """A convolution of maps, with the parameters of flax's module of this name.

    `padding` is "SAME", zeros on every side, or pairs of them (before, after) for rows and columns.
    `feature_group_count` is 1, or the number of channels: then each has a kernel of its own.

    Where the collection `transformed` is mutable, what `ops.winograd` makes of the kernel is put
    there; where it holds that, it is used. See `training.transformed`.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] = (1, 1)
    padding: str | int | Sequence[Sequence[int]] = "SAME"
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros
    precision: lax.PrecisionLike = None

    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` to `[B, H', W', features]`."""
        y, bias = self.before_bias(x)
        return y if bias is None else y + bias

    @nn.compact
    def before_bias(self, x: Array) -> tuple[Array, Array | None]:
        """What the bias is still to be added to, and the bias `[features]`: for a batch norm."""
        groups = self.feature_group_count
        shape = (*self.kernel_size, x.shape[-1] // groups, self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        bias = parameter(self, "bias", self.bias_init, shape[-1:]) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        how = tuple(self.strides), self._borders(x)
        if groups > 1:
            y = convolution.convolve_depthwise(x, kernel, *how, self.precision)
        elif (found := self._by_transformed(x, kernel, *how)) is not None:
            y = found
        else:
            y = convolution.convolve(x, kernel, *how, self.precision)
        return y, bias

    def _by_transformed(self, x, kernel, strides, padding) -> Array | None:
        """The convolution with the kernel as Winograd takes it, where that is used and fixed."""
        if not convolution.by_winograd(x.shape, kernel.shape, x.dtype, strides, padding):
            return None
        if self.is_mutable_collection(TRANSFORMED) and not self.is_initializing():
            self.put_variable(TRANSFORMED, "kernel", winograd.transform_kernel(kernel))
            if convolution_rule.outputs_outweigh_rows(x.shape, kernel.shape):
                self.put_variable(TRANSFORMED, OUTPUTS, winograd.transform_outputs(kernel))
        if rows.count() > 1 and self.has_variable(TRANSFORMED, OUTPUTS):
            return convolution.by_shared_outputs(x, self.get_variable(TRANSFORMED, OUTPUTS))
        if self.has_variable(TRANSFORMED, "kernel"):
            return convolution.by_transformed(x, self.get_variable(TRANSFORMED, "kernel"))
        return None

    def _borders(self, x: Array) -> tuple[tuple[int, int], ...]:
        if isinstance(self.padding, int):
            return ((self.padding, self.padding),) * 2
        if isinstance(self.padding, str):
            return tuple(
                lax.padtype_to_pads(x.shape[1:3], self.kernel_size, self.strides, self.padding)
            )
        return tuple((int(before), int(after)) for before, after in self.padding)
