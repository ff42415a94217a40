"""Measures the forms of `ops.convolution` and XLA's by shape, the basis of its rule."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from imvad_jax.benchmarks.measure import measure, summary
from imvad_jax.ops import convolution
from imvad_jax.ops import convolution_rule as rule
from imvad_jax.reporting.text_table import format_rows
from imvad_jax.training.parallel import Parallel

IMAGES = 8  # a device
REPEATS, LEAST_SECONDS = 3, 0.2


class Shape(NamedTuple):
    """A square kernel on square maps."""

    side: int  # pixels
    kernel: int
    stride: int
    inputs: int  # channels
    outputs: int
    depthwise: bool = False  # a kernel of its own for each channel

    def __str__(self) -> str:
        channels = (
            f"{self.inputs} depthwise" if self.depthwise else f"{self.inputs}->{self.outputs}"
        )
        return f"{self.kernel}x{self.kernel}/{self.stride} {channels} at {self.side}"


# Of the networks in use, at 256 pixels; and those near the edges of the rule.
SHAPES = (
    Shape(256, 7, 2, 3, 64),
    Shape(64, 3, 1, 64, 64),
    Shape(32, 3, 1, 128, 128),
    Shape(16, 3, 1, 256, 256),
    Shape(28, 3, 1, 128, 128),
    Shape(14, 3, 1, 256, 256),
    Shape(8, 3, 1, 512, 512),
    Shape(128, 3, 1, 64, 64),
    Shape(128, 3, 1, 32, 32),
    Shape(256, 3, 1, 16, 16),
    Shape(256, 3, 1, 3, 32),
    Shape(64, 3, 2, 64, 128),
    Shape(32, 3, 2, 128, 256),
    Shape(64, 1, 2, 64, 128),
    Shape(64, 1, 1, 256, 128),
    Shape(64, 4, 2, 64, 128),
    Shape(64, 7, 2, 3, 64),
    Shape(16, 3, 2, 64, 128),
    Shape(16, 5, 1, 64, 64),
    Shape(16, 5, 1, 64, 256),
    Shape(8, 5, 1, 64, 256),
    Shape(16, 3, 1, 64, 64),
    Shape(8, 3, 1, 128, 128),
    Shape(4, 5, 1, 64, 256),
    Shape(8, 5, 2, 64, 256),
    Shape(128, 3, 1, 6, 16),
    Shape(128, 3, 1, 16, 16),
    Shape(128, 3, 1, 32, 16),
    Shape(128, 3, 1, 16, 2),
    Shape(128, 3, 1, 32, 32, depthwise=True),
    Shape(128, 3, 2, 96, 96, depthwise=True),
    Shape(64, 5, 2, 144, 144, depthwise=True),
    Shape(32, 5, 1, 240, 240, depthwise=True),
    Shape(16, 5, 1, 480, 480, depthwise=True),
    Shape(8, 5, 1, 1152, 1152, depthwise=True),
)


class Row(NamedTuple):
    """Rates of one direction of a shape, GFLOP/s, counted as direct: XLA's and the rule's form."""

    shape: str
    direction: str
    xla: float
    rule: float
    form: str

    @property
    def loss(self) -> float:
        """Share of XLA's rate that the rule's form does not reach; 0 if it is faster."""
        return max(0.0, 1 - self.rule / self.xla)


def measure_shape(shape: Shape, parallel: Parallel) -> list[Row]:
    """The three directions of a shape: forward, and the gradients of the input and the kernel."""
    border = (shape.kernel - 1) // 2
    padding = ((border, border), (border, border))
    strides = (shape.stride, shape.stride)
    run = convolution.convolve_depthwise if shape.depthwise else convolution.convolve
    size = (shape.kernel, shape.kernel, 1 if shape.depthwise else shape.inputs, shape.outputs)
    x = _draw(0, (parallel.count * IMAGES, shape.side, shape.side, shape.inputs))
    kernel = _draw(1, size)

    def forward(x, kernel):
        return run(x, kernel, strides, padding)

    def to_input(x, kernel, gradient):
        return jax.vjp(lambda x: forward(x, kernel), x)[1](gradient)[0]

    def to_kernel(x, kernel, gradient):
        return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](gradient)[0]

    gradient = _draw(2, jax.eval_shape(forward, x, kernel).shape)
    flops = 2 * gradient.size * shape.kernel**2 * size[2]
    how = rule.How(strides, padding, None, "auto")
    choices = {"forward": rule.forward, "input": rule.to_input, "kernel": rule.to_kernel}
    chosen = {
        name: "shifts" if shape.depthwise else choose(x.shape, size, x.dtype, how)
        for name, choose in choices.items()
    }
    copies = np.concatenate([kernel] * parallel.count)
    x, copies, gradient = _place((x, copies, gradient), parallel)
    rows = []
    for direction, function, arrays in (
        ("forward", forward, (x, copies)),
        ("input", to_input, (x, copies, gradient)),
        ("kernel", to_kernel, (x, copies, gradient)),
    ):
        calls = {form: _call(form, function, arrays, parallel) for form in convolution.FORMS}
        samples = measure(calls, REPEATS, LEAST_SECONDS)
        rate = {form: flops / summary(found.wall)["median"] for form, found in samples.items()}
        rows.append(
            Row(str(shape), direction, rate["xla"] / 1e9, rate["auto"] / 1e9, chosen[direction])
        )
    return rows


def _draw(seed: int, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _place(arrays, parallel: Parallel):
    """Each device's part of arrays, on it."""
    keep = parallel.compile(lambda *arrays: arrays, (True,) * len(arrays))
    return keep(*map(parallel.split, arrays))


def _call(form: str, function, arrays, parallel: Parallel):
    # A function of its own: what is compiled keeps the form that it was traced with.
    def traced(*arrays):
        with convolution.forms(form):
            return function(*arrays)

    compiled = parallel.compile(traced, (True,) * len(arrays))

    def call(count: int) -> None:
        found = None
        for _ in range(count):
            found = compiled(*arrays)
        jax.block_until_ready(found)

    return call


def table(rows: Sequence[Row]) -> str:
    """Rates in columns; what the rule takes; how it compares with XLA's form."""
    head = ("convolution", "direction", "XLA", "rule", "rule / XLA", "form")
    cells = [
        (row.shape, row.direction, f"{row.xla:.1f}", f"{row.rule:.1f}",
         f"{row.rule / row.xla:.2f}", row.form)
        for row in rows
    ]  # fmt: skip
    title = f"GFLOP/s, counted as a direct convolution; {IMAGES} images per device"
    return f"{title}\n{format_rows(head, cells, left=2)}"


def measured_again(rows: Sequence[Row], tolerance: float, parallel: Parallel) -> list[Row]:
    """The same rows; of those that lose more than `tolerance`, the better of two measurements.

    What another process took from one of the two forms is not lost by the other's choice.
    """
    lost = {row.shape for row in rows if row.loss > tolerance}
    shapes = [shape for shape in SHAPES if str(shape) in lost]
    again = [row for shape in shapes for row in measure_shape(shape, parallel)]
    second = {(row.shape, row.direction): row for row in again}
    return [
        min(row, second.get((row.shape, row.direction), row), key=lambda row: row.loss)
        for row in rows
    ]


def slower(rows: Sequence[Row], tolerance: float) -> list[str]:
    """A line for each row whose form loses more than `tolerance` of the rate of XLA's."""
    return [
        f"{row.shape}, {row.direction}: the rule takes the form that reaches {1 - row.loss:.0%} of "
        "the rate of XLA's"
        for row in rows
        if row.loss > tolerance
    ]
