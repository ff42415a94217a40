"""Counts the floating-point operations of a traced program: matrix products and convolutions.

XLA's own cost analysis counts the body of a loop once, however often it runs, which misses most of
the work when images are scored one by one; it also does not know the cost of some library calls.
"""

import math

from jax.extend import core

_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where equations that call others keep them


def count_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> tuple[int, bool]:
    """Operations of all devices together, a multiplication and an addition being two.

    Element-wise work is not counted: this is what a rate is compared with that of a plain matrix
    product. Zeros that a transposed convolution inserts are left out. Convolutions count as direct
    ones in a program traced in the form "xla" (`ops.convolution`); in another form their products
    count as they are.

    Returns:
      The number, and whether it is complete: of a loop that ends by a condition one round is
      counted, of a branch the most expensive case.
    """
    total, complete = 0, True
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _product(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            cases = [count_flops(branch) for branch in params["branches"]]
            total += max(flops for flops, _ in cases)
            complete &= all(known for _, known in cases)
        elif name == "while":
            flops, _ = count_flops(params["body_jaxpr"])
            total += flops
            complete &= not flops
        else:
            inner = next((params[key] for key in _INNER if key in params), None)
            if inner is not None:
                flops, known = count_flops(inner)
                total += flops * _rounds(name, params)
                complete &= known
    return total, complete


def _rounds(name: str, params: dict) -> int:
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        return params["mesh"].size
    return 1


def _product(equation) -> int:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _convolution(equation) -> int:
    params, kernel = equation.params, equation.invars[1].aval.shape
    _, channels, *spatial = params["dimension_numbers"].rhs_spec
    window = kernel[channels] * math.prod(kernel[axis] for axis in spatial)
    inserted = math.prod(params["lhs_dilation"])
    return 2 * equation.outvars[0].aval.size * window // inserted
