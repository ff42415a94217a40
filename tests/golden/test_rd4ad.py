"""RD4AD against hq-deng/RD4AD: embedding, decoder, maps, and six steps of its training."""

import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.backbones import layout
from imvad_jax.methods.rd4ad import RD4AD, RD4ADConfig
from imvad_jax.training.fit import init_variables
from tests.golden import resnets, training
from tests.golden.files import as_double, as_float, channels_last, images, recipe

CONFIG = RD4ADConfig(backbone="resnet18", image_size=64, batch_size=4)
# Our names to those of the official bottleneck (bn.*) and decoder, before the rules of ResNets.
RENAMED = {
    r"embedding_fuse0_0_conv": "bn.conv1", r"embedding_fuse0_0_bn": "bn.bn1",
    r"embedding_fuse0_1_conv": "bn.conv2", r"embedding_fuse0_1_bn": "bn.bn2",
    r"embedding_fuse1_0_conv": "bn.conv3", r"embedding_fuse1_0_bn": "bn.bn3",
    r"embedding_block(\d)\.": r"bn.bn_layer.\1.",
    r"decoder_stage(\d)_(\d)\.": lambda m: f"decoder.layer{int(m[1]) + 1}.{m[2]}.",
    r"(decoder.*)\.downsample": r"\1.upsample",
}  # fmt: skip


def official_name(path: tuple[str, ...]) -> tuple[str, bool]:
    """The official name of one of our variables, and whether it is a transposed convolution's."""
    transposed = path[-2] == "conv"
    root, *inner = (*path[:-2], path[-1]) if transposed else path
    module, *rest = inner
    dotted = layout.timm_name((*rest[:-1], rest[-1]))
    name = f"{root}_{module}.{dotted}"
    for ours, theirs in RENAMED.items():
        name = re.sub(f"^{ours}", theirs, name)
    return name, transposed


def to_ours(transposed: bool, kernel: bool, value: np.ndarray) -> np.ndarray:
    """A PyTorch array in our layout."""
    if not kernel:
        return value
    if not transposed:
        return value.transpose(2, 3, 1, 0)
    return value.transpose(0, 2, 3, 1).reshape(1, 1, value.shape[0], -1)


def to_official(transposed: bool, kernel: bool, value: np.ndarray) -> np.ndarray:
    """The reverse."""
    if not kernel:
        return value
    if not transposed:
        return value.transpose(3, 2, 0, 1)
    return value.reshape(value.shape[2], 2, 2, -1).transpose(0, 3, 1, 2)


def official(collection: dict) -> dict[str, np.ndarray]:
    """The arrays of a collection by the official names, in PyTorch's layouts."""
    found = {}
    for path, leaf in traverse_util.flatten_dict(collection).items():
        name, transposed = official_name(path)
        found[name] = to_official(transposed, path[-1] == "kernel", np.asarray(leaf))
    return found


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("rd4ad")


@pytest.fixture(scope="module")
def variables():
    backbone = resnets.variables("resnet18", CONFIG.layers)
    shapes = jax.eval_shape(lambda: init_variables(RD4AD(CONFIG), backbone, 0))
    found = {"backbone": backbone}
    for kind in ("params", "batch_stats"):
        flat = {}
        for path, leaf in traverse_util.flatten_dict(shapes[kind]).items():
            name, transposed = official_name(path)
            kernel = path[-1] == "kernel"
            shape = to_official(transposed, kernel, np.zeros(leaf.shape)).shape
            prefix, inner = name.split(".", 1)
            flat[path] = to_ours(transposed, kernel, recipe(inner, shape, f"{prefix}."))
        found[kind] = traverse_util.unflatten_dict(flat)
    return found


def test_maps_and_scores(golden, variables):
    detector = RD4AD(CONFIG)

    @jax.jit
    def run(variables, x):
        def networks(detector, x):
            teacher = detector.frozen_features(x)
            embedding = detector.embedding(teacher, train=False)
            return teacher[0], embedding, detector.decoder(embedding, train=False)

        return detector.apply(variables, x), detector.apply(variables, x, method=networks)

    found, (teacher, embedding, decoded) = run(variables, as_float(images(2, 64, 21)))
    golden.check("teacher's layer1", teacher[:1], channels_last(golden["teacher_layer1"]), 1e-5)
    golden.check("embedding", embedding[:1], channels_last(golden["embedding"]), 1e-5)
    for name, x in zip(("decoded_layer3", "decoded_layer2", "decoded_layer1"), decoded):
        expected = channels_last(golden[name])
        golden.check(name.replace("_", " "), jax.nn.relu(x[:1]), expected, 1e-5)
    golden.check("map", found.anomaly_map, golden["map"], 1e-5)
    golden.check("score", found.score, golden["score"], 1e-5)


@pytest.mark.slow
def test_training(golden, variables):
    with jax.enable_x64(True):
        config = RD4ADConfig(backbone="resnet18", image_size=64, batch_size=4, dtype="float64")
        detector = training.kept(RD4AD(config))
        double = as_double(variables)
        pictures = as_float(images(8, 64, 22), np.float64)
        frozen = jax.jit(lambda v, x: detector.apply(v, x, method="frozen_features"))
        batches = [frozen(double, pictures[:4]), frozen(double, pictures[4:])]
        found = training.train(detector, double, 3 * batches)
    golden.check("losses of 6 steps", found.figure("loss"), golden["losses_float64"], 1e-9)
    # Golden gradients are those of float32, which rounding moves by per cents where they are small;
    # the later losses are those of float64 and hang on all of them.
    gradients = official(found.gradients)
    golden.check(
        "norms of all gradients", resnets.norms(gradients),
        dict(zip(golden["grad_names"], golden["grad_norms"], strict=True)), 5e-3,
    )  # fmt: skip
    for name, key, tolerance in (
        ("bn.bn1.weight", "grad_bn_bn1_weight", 3e-2),
        ("decoder.layer3.1.bn2.weight", "grad_decoder_layer3_1_bn2_weight", 5e-5),
        ("decoder.layer3.0.conv1.weight", "grad_decoder_layer3_0_conv1", 5e-5),
    ):
        expected = golden[key]
        golden.check(f"gradient of {name}", gradients[name][: len(expected)], expected, tolerance)
    first = official(found.states[0]["params"]) | official(found.states[0]["batch_stats"])
    name, expected = "decoder.layer3.0.conv1", golden["step1_decoder_layer3_0_conv1"]
    found = first[f"{name}.weight"][: len(expected)]
    golden.check(f"{name} after 1 step", found, expected, 2e-3)
    name = "bn.bn_layer.1.bn2"
    expected = golden["step1_bn_layer_1_bn2_mean"]
    golden.check("running mean after 1 step", first[f"{name}.running_mean"], expected, 1e-5)
    variances = {
        name: "step1_bn_layer_1_bn2_var", "decoder.layer3.1.bn2": "step1_decoder_layer3_1_bn2_var"
    }  # fmt: skip
    golden.check(
        "running variances after 1 step",
        {name: first[f"{name}.running_var"] for name in variances},
        {name: golden[key] for name, key in variances.items()},
        1e-5,
    )
