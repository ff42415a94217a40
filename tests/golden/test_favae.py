"""FAVAE against xiahaifeng1995/FAVAE: a narrow one on given features; three steps of training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.layers import vae
from imvad_jax.methods import favae
from tests.golden import training
from tests.golden.files import as_double, as_float, channels_last

LAYERS = ("relu8", "relu15", "relu22")
WIDTHS = (8, 16, 32)  # of the golden teacher; VGG's are 16 times as wide
CONFIG = favae.FAVAEConfig(width=8, augment=False)
TERMS = ("images", *LAYERS, "kl")
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class Narrow(favae.FAVAE):
    """FAVAE whose teacher is as narrow as the golden one."""

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.encoder, self.decoder, _ = favae.modules(self.config)
        self.adapters = [vae.Adapter(width, dtype) for width in WIDTHS]


def to_ours(tensors: dict[str, np.ndarray]) -> dict:
    """Tensors by the official names as our variables, flat."""
    found = {}
    for name, value in tensors.items():
        part, number, *inner, leaf = name.split(".")
        number, kernel = int(number), leaf == "weight" and value.ndim == 4
        own = "kernel" if kernel else "bias"
        if part == "adapter":
            path = (f"adapters_{number}", {"0": "conv1", "2": "conv2"}[inner[1]], "conv", own)
            found[path] = value.transpose(2, 3, 1, 0) if kernel else value
            continue
        # Convolution, batch norm, leaky ReLU in turn; the decoder reshapes the latents first.
        encoder = part == "encode"
        layer, kind = divmod(number if encoder else number - 1, 3)
        if kind == 1:
            found[f"{part}r", f"bn{layer + 1}", NORM[leaf]] = value
            continue
        path = (f"{part}r", f"conv{layer + 1}", *(("conv",) if encoder else ()), own)
        order = (2, 3, 1, 0) if encoder else (2, 3, 0, 1)
        found[path] = value.transpose(order) if kernel else value
    return found


def learnt(flat: dict) -> dict:
    """Those without biases that a batch norm takes away again: their gradient is rounding."""
    return {
        path: value
        for path, value in flat.items()
        if not (path[-1] == "bias" and path[0] in ("encoder", "decoder")
                and path[1].startswith("conv") and path[1] != "conv9")
    }  # fmt: skip


def statistics(flat: dict) -> dict:
    return {path: value for path, value in flat.items() if path[-1] in ("mean", "var")}


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("favae")


@pytest.fixture(scope="module")
def variables(golden):
    flat = to_ours(golden["params/"])
    moved = statistics(flat)
    params = {path: value for path, value in flat.items() if path not in moved}
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(moved),
    }


@pytest.fixture(scope="module")
def targets(golden):
    """The images and what the teacher makes of them."""
    maps = {name: channels_last(golden[f"teacher/t{i}"]) for i, name in enumerate(LAYERS)}
    return {"images": as_float(channels_last(golden["images_u8"])), **maps}


def test_maps_and_scores(golden, variables, targets):
    class OnFeatures(Narrow):
        def targets(self, images):
            return targets

    smooth, plain = (
        OnFeatures(dataclasses.replace(CONFIG, sigma=sigma)) for sigma in (CONFIG.sigma, 0.0)
    )

    @jax.jit
    def run(variables, x):
        def encoded(detector, x):
            return detector.encoder(x, train=False)

        found = [detector.apply(variables, x) for detector in (smooth, plain)]
        return *found, smooth.apply(variables, x, method=encoded)

    found, raw, (mean, log_variance) = run(variables, targets["images"])
    golden.check("latent means", mean, golden["eval/mu"], 1e-5)
    golden.check("latent log variances", log_variance, golden["eval/log_var"], 1e-5)
    golden.check("map before smoothing", raw.anomaly_map, golden["map_raw"], 1e-5)
    golden.check("map", found.anomaly_map, golden["map"], 1e-5)
    golden.check("score", found.score, golden["image_score"], 1e-5)


def test_training(golden, variables, targets, monkeypatch):
    noise = golden["eps"].astype(np.float64)
    monkeypatch.setattr(favae, "standard_normal", lambda keys, like: noise)
    with jax.enable_x64(True):
        detector = training.kept(Narrow(dataclasses.replace(CONFIG, dtype="float64")))
        batch = as_double(targets)
        batch["images"] = as_float(channels_last(golden["images_u8"]), np.float64)
        found = training.train(detector, as_double(variables), 3 * [batch])
    # The reference sums over the batch, ours is a mean over it.
    count = len(noise)
    terms = count * np.array([found.metrics[0][name] for name in TERMS])
    golden.check("terms of the loss", terms, golden["parts_image_t0_t1_t2_kl"], 1e-5)
    gradients = jax.tree.map(lambda x: count * x, found.gradients)
    gradients, expected = (
        learnt(flat) for flat in (traverse_util.flatten_dict(gradients), to_ours(golden["grad/"]))
    )
    golden.check("gradients of all parameters", gradients, expected, 1e-3)
    moved = traverse_util.flatten_dict(found.states[0]["batch_stats"])
    # The reference runs its decoder twice a step, so that its statistics move twice.
    expected = statistics(to_ours(golden["bn_after_two_decoder_passes/"]))
    for part in ("encoder", "decoder"):
        once, twice = (
            {path: x for path, x in flat.items() if path[0] == part} for flat in (moved, expected)
        )
        if part == "decoder":
            start = traverse_util.flatten_dict(variables["batch_stats"])
            once = {path: x + 0.9 * (x - start[path]) for path, x in once.items()}
        golden.check(f"running statistics of the {part} after 1 step", once, twice, 1e-5)
    losses = count * found.figure("loss")
    golden.check("losses of 3 steps", losses, golden["losses3"], 1e-4)
    last, expected = (
        learnt(flat)
        for flat in (
            traverse_util.flatten_dict(found.states[-1]["params"]), to_ours(golden["after3/"])
        )
    )  # fmt: skip
    last = {path: last[path] for path in expected}
    golden.check("parameters after 3 steps", last, expected, 1e-3)
