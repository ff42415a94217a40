"""Part a of the suite on this machine's CPU."""

import pytest

from imvad_jax.benchmarks.suite import device


@pytest.mark.parametrize(
    ("bits", "name"), [(23, "float32"), (10, "TF32"), (7, "bfloat16")]
)  # fmt: skip
def test_precision_is_told_from_the_error(bits, name):
    import numpy as np

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 64, 512)), rng.normal(size=(2, 512, 64))

    def rounded(x):
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)

    exact, found = one @ two, rounded(one) @ rounded(two)
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert device.precision_in_words(error) == name


def test_measures_products_and_copies():
    found = device.measure(seconds=0.01, size=128)
    assert [p["computed_in"] for p in found["products"]] == ["float32", "float32", "bfloat16"]
    assert found["products"][1]["precision"] == "highest"
    assert all(p["flops_per_s"] > 0 for p in found["products"])
    assert all(found["copies"][f"{key}_bytes_per_s"] > 0
               for key in ("device", "to_device", "from_device"))  # fmt: skip
    assert {"python", "jax", "numpy"} <= found["versions"].keys()
