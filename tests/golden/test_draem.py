"""DRAEM against VitjanZ/DRAEM: narrow networks on given anomalies; five steps of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.methods import draem
from imvad_jax.ops.anomaly import SyntheticAnomaly
from imvad_jax.ops.ssim import ssim_map
from tests.golden import training
from tests.golden.files import as_double, as_float, channels_last

WIDTHS = {
    "reconstructive_widths": (4, 8, 16, 32, 32), "discriminative_widths": (4, 8, 16, 32, 32, 32)
}  # fmt: skip
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
TERMS = ("mse", "ssim", "focal")


class OnDrawn(draem.DRAEM):
    """DRAEM of a class of its own: its compiled steps hold the golden anomalies."""


def to_ours(tensors: dict[str, np.ndarray], network: str) -> dict:
    """Tensors of one network by the official names as our variables, flat."""
    found = {}
    for name, value in tensors.items():
        part, module, *index, leaf = name.split(".")
        if module == "fin_out":
            path = ("output",)
        else:
            # Convolution, batch norm, ReLU in turn; an upsampling comes before some.
            number = int(index[0])
            if part.startswith("encoder"):
                place, which = f"encoder{int(module[-1]) - 1}", divmod(number, 3)
            else:
                level = 4 if module.endswith("_b") else 4 - int(module[-1])
                raises = module.startswith("up")
                repaired = network == "reconstructive"
                place = f"up{level}" if raises and not repaired else f"decoder{level}"
                which = divmod(number - 1 if raises else number, 3)
                if repaired and not raises:  # its decoder is one stack of three
                    which = (which[0] + 1, which[1])
            path = (place, f"{('conv', 'bn')[which[1]]}{which[0]}")
        conv = path[-1].startswith("conv") or path == ("output",)
        own = ("kernel" if leaf == "weight" else leaf) if conv else NORM[leaf]
        value = value.transpose(2, 3, 1, 0) if own == "kernel" else value
        found[(network, *path, own)] = value
    return found


def both(tensors: dict[str, np.ndarray]) -> dict:
    """Tensors of both networks, `rec.` and `seg.`, as our variables, flat."""
    found = {}
    for prefix, network in (("rec.", "reconstructive"), ("seg.", "discriminative")):
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        found |= to_ours(own, network)
    return found


def statistics(flat: dict) -> dict:
    return {path: value for path, value in flat.items() if path[-1] in ("mean", "var")}


def learnt(flat: dict) -> dict:
    """Parameters without biases that a batch norm takes away: their gradient is rounding."""
    return {
        path: value
        for path, value in flat.items()
        if path[-1] not in ("mean", "var")
        and not (path[-1] == "bias" and path[-2].startswith("conv"))
    }


def length(arrays: dict) -> float:
    """The Euclidean norm of all arrays together."""
    return np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays.values()))


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("draem")


@pytest.fixture(scope="module")
def variables(golden):
    flat = to_ours(golden["rec/"], "reconstructive") | to_ours(golden["seg/"], "discriminative")
    moved = statistics(flat)
    params = {path: value for path, value in flat.items() if path not in moved}
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(moved),
    }


def test_networks_losses_map_and_score(golden, variables):
    detector = draem.DRAEM(draem.DRAEMConfig(image_size=64, **WIDTHS))
    clean, drawn = (as_float(channels_last(golden[k])) for k in ("clean_u8", "augmented_u8"))
    mask = golden["mask"][:, 0]

    @jax.jit
    def run(variables, clean, drawn):
        repaired, logits = detector.apply(variables, drawn, False, method="networks")
        losses = {
            "mse": jnp.mean((repaired - clean) ** 2),
            "ssim": 1 - ssim_map(repaired, clean).mean(),
            "focal": draem.focal_loss(logits, mask),
        }
        ranges = [1 - ssim_map(x, drawn).mean() for x in (clean, clean * 3 - 1.5)]
        return repaired, logits, detector.apply(variables, drawn), losses, ranges

    repaired, logits, found, losses, ranges = run(variables, clean, drawn)
    expected = channels_last(golden["eval_repaired"])
    golden.check("repaired images", repaired[:2], expected, 1e-5)
    golden.check("logits", logits[:2], channels_last(golden["eval_logits"]), 1e-5)
    golden.check("map", found.anomaly_map[:2], golden["eval_map"], 1e-5)
    golden.check("score", found.score, golden["score21"], 1e-5)
    expected = dict(zip(TERMS, golden["eval_losses_mse_ssim_focal"], strict=True))
    golden.check("terms of the loss, evaluated", losses, expected, 1e-5)
    golden.check("SSIM of values in [0, 1]", ranges[0], golden["ssim_loss_clean_vs_aug"], 1e-5)
    wide = golden["ssim_loss_wide_vs_aug"]
    golden.check("SSIM of values in [-1.5, 1.5]", ranges[1], wide, 1e-5)


@pytest.mark.slow
def test_training(golden, variables, monkeypatch):
    clean, drawn = (
        as_float(channels_last(golden[k]), np.float64) for k in ("clean_u8", "augmented_u8")
    )
    given = SyntheticAnomaly(clean, drawn, golden["mask"][:, 0], drawn)
    monkeypatch.setattr(draem.anomaly, "synthesize", lambda *arguments, **options: given)
    with jax.enable_x64(True):
        config = draem.DRAEMConfig(image_size=64, batch_size=4, dtype="float64", **WIDTHS)
        detector, double = training.kept(OnDrawn(config)), as_double(variables)
        networks = jax.jit(
            lambda v, x: detector.apply(v, x, True, method="networks", mutable=["batch_stats"])[0]
        )
        repaired, logits = networks(double, drawn)
        found = training.train(detector, double, 5 * [clean])
    expected = channels_last(golden["train_repaired"])
    golden.check("repaired images in training", repaired[:2], expected, 1e-3)
    expected = channels_last(golden["train_logits"])
    golden.check("logits in training", logits[:2], expected, 1e-3)
    terms = {name: found.metrics[0][name] for name in TERMS}
    expected = {name: golden[f"train_{name}"] for name in TERMS}
    golden.check("terms of the loss, in training", terms, expected, 1e-4)
    # The golden gradients are those of float32, off by up to 7 % of an array's largest value from
    # those of float64, and later steps follow them.
    gradients, expected = learnt(traverse_util.flatten_dict(found.gradients)), golden["grad/"]
    expected = learnt(both(expected))
    golden.check("gradients of all parameters", gradients, expected, 0.15)
    golden.check("length of the gradient", length(gradients), length(expected), 2e-2)
    # Next to the loss there is little to round, so that these tell the weights of its terms.
    ours, theirs = (
        {path: x for path, x in flat.items() if path[1:] == ("output", "bias")}
        for flat in (gradients, expected)
    )
    assert len(theirs) == 2
    golden.check("gradients of the last biases", ours, theirs, 1e-3)
    moved = traverse_util.flatten_dict(found.states[0]["batch_stats"])
    expected = statistics(both(golden["bn_after/"]))
    golden.check("running statistics after 1 step", moved, expected, 1e-4)
    terms = np.stack([found.figure(name) for name in TERMS], 1)
    golden.check("terms of the loss of 5 steps", terms, golden["losses5"], 3e-2)
    start = traverse_util.flatten_dict(variables["params"])
    last = traverse_util.flatten_dict(found.states[-1]["params"])
    after = learnt(both(golden["after5/"]))
    ours, theirs = (length({k: x[k] - start[k] for k in after}) for x in (last, after))
    golden.check("length of the way of 5 steps", ours, theirs, 2e-2)
