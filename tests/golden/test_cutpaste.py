"""CutPaste against Runinho/pytorch-cutpaste: network, loss, one step, and its Gaussian."""

import dataclasses
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax import backbones
from imvad_jax.methods.cutpaste import CutPaste, CutPasteConfig
from tests.golden import resnets, training
from tests.golden.files import as_double, as_float, shared_root

CONFIG = CutPasteConfig(image_size=64, batch_size=4)  # the head is that of the default
HEAD = (0, 3)  # numbers of its linear layers; a batch norm follows each


class OnWays(CutPaste):
    """CutPaste whose images are the ways themselves: nothing is drawn."""

    def augment(self, key, image):
        return image


class OnEmbeddings(CutPaste):
    """CutPaste whose images are embeddings, without a network."""

    embedding_dim = 64

    def embed(self, images, train=False):
        return images


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter of this name, as the golden file was made with."""
    seed = zlib.crc32(name.encode()) & 0x7FFFFFFF
    z = np.random.RandomState(seed).standard_normal(shape)
    if name.endswith("running_var"):
        z = 1 + 0.3 * np.abs(z.astype(np.float32))
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif len(shape) >= 2:
        z = 1.4 / np.sqrt(np.prod(shape[1:])) * z
    elif name.endswith("weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("cutpaste")


@pytest.fixture(scope="module")
def tensors(load_golden):
    """All parameters by their official names."""
    names = shared_root() / "reference/parity/methods/cutpaste_names.json"
    shapes = json.loads(names.read_text(encoding="utf-8"))
    return {name: value(name, tuple(shape)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def variables(tensors):
    encoder = {
        name.removeprefix("resnet18."): x
        for name, x in tensors.items()
        if name.startswith("resnet18.")
    }
    encoder = backbones.get("resnet18").from_timm(encoder, ("pool",))
    params, statistics = {}, {}
    for number, layer in enumerate(HEAD):
        linear, norm = f"head.{layer}", f"head.{layer + 1}"
        params[f"linear{number}"] = {"kernel": tensors[f"{linear}.weight"].T}
        params[f"norm{number}"] = {
            "scale": tensors[f"{norm}.weight"], "bias": tensors[f"{norm}.bias"]
        }  # fmt: skip
        # Ours have no bias before a batch norm, which is as if the mean were less by it.
        mean = tensors[f"{norm}.running_mean"] - tensors[f"{linear}.bias"]
        statistics[f"norm{number}"] = {"mean": mean, "var": tensors[f"{norm}.running_var"]}
    params["classifier"] = {"kernel": tensors["out.weight"].T, "bias": tensors["out.bias"]}
    return {
        "params": {"encoder": encoder["params"], "head": params},
        "batch_stats": {"encoder": encoder["batch_stats"], "head": statistics},
    }


def test_embeddings_and_logits(golden, variables):
    detector = CutPaste(CONFIG)
    pictures = as_float(golden["ways_u8"].transpose(0, 1, 3, 4, 2).reshape(-1, 64, 64, 3))

    @jax.jit
    def run(variables, x):
        embeddings = detector.apply(variables, x, method="embed")
        return embeddings, detector.apply(variables, x, False, method="classify")

    embeddings, logits = run(variables, pictures)
    golden.check("embeddings", embeddings, golden["eval_embeds"], 1e-5)
    golden.check("logits", logits, golden["eval_logits"], 1e-5)


def official(tree: dict) -> dict[str, np.ndarray]:
    """Our collection by the official names."""
    found = {f"resnet18.{k}": x for k, x in resnets.by_torch_name(tree["encoder"]).items()}
    for name, arrays in tree["head"].items():
        number = HEAD[int(name[-1])] if name[-1].isdigit() else None
        if name == "classifier":
            found |= {"out.weight": arrays["kernel"].T, "out.bias": arrays["bias"]}
        elif name.startswith("linear"):
            found[f"head.{number}.weight"] = arrays["kernel"].T
        else:
            own = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
            found |= {f"head.{number + 1}.{own[k]}": x for k, x in arrays.items()}
    return found


def test_training(golden, tensors, variables):
    ways = golden["ways_u8"].transpose(1, 0, 3, 4, 2)  # [B, ways, H, W, C]
    with jax.enable_x64(True):
        config = dataclasses.replace(CONFIG, dtype="float64")
        detector = training.kept(OnWays(config))
        found = training.train(detector, as_double(variables), [as_float(ways, np.float64)])
    golden.check("loss", found.figure("loss")[0], golden["loss"], 1e-5)
    gradients = official(found.gradients)
    norms = {name: x[0] for name, x in golden["grad_norm_and_sum/"].items() if name in gradients}
    golden.check("norms of all gradients", resnets.norms(gradients), norms, 1e-4)
    some = golden["grad/"]
    golden.check("some gradients", {name: gradients[name] for name in some}, some, 1e-3)
    after, moved = golden["bn_after/"], official(found.states[0]["batch_stats"])
    for layer in HEAD:  # our means have not got the bias before them
        name = f"head.{layer + 1}.running_mean"
        moved[name] = moved[name] + tensors[f"head.{layer}.bias"]
    moved = {name: moved[name] for name in after}
    golden.check("running statistics after 1 step", moved, after, 1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_gaussian(golden, normalize):
    detector = OnEmbeddings(CutPasteConfig(image_size=64, normalize=normalize))
    train, test = (jnp.asarray(golden[f"gauss_{part}"]) for part in ("train", "test"))
    gathered = detector.init_accumulator(len(train))
    gathered = detector.apply({}, gathered, train, jnp.arange(len(train)), method="accumulate")
    memory = detector.apply({}, [gathered], len(train), None, None, method="finalize")
    found = detector.apply({"memory": memory}, test)
    kind = "normalized" if normalize else "raw"
    golden.check(f"score, {kind} embeddings", found.score, golden[f"gauss_score_{kind}"], 1e-5)
