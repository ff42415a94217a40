"""Training steps in plain PyTorch have our losses; skipped where PyTorch is not installed."""

import dataclasses
import importlib
import re

import jax
import numpy as np
import optax
import pytest

from imvad_jax.benchmarks import workloads
from imvad_jax.errors import UserError
from imvad_jax.methods.base import TrainedConfig
from imvad_jax.training import gradient as gradient_phase
from imvad_jax.training.job import as_float
from imvad_jax.training.optimizers import make_optimizer
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images, make

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
steps = importlib.import_module("imvad_jax.benchmarks.compare_torch_steps")
optimizers = importlib.import_module("imvad_jax.benchmarks.torch_networks.optimizer")

CPU = torch.device("cpu")
COUNT = 8  # images


def subject(method, **overrides):
    detector, variables = make(method, **overrides)
    options = workloads.Options(repeats=1, least_seconds=0.0)
    parallel = Parallel(jax.local_devices()[:1])
    case = workloads.Subject(
        detector=detector, variables=variables, images=images(COUNT), parallel=parallel, seed=0,
        options=options,
    )  # fmt: skip
    return dataclasses.replace(case, variables=workloads.before_training(case))


def make_steps(case):
    """The batch and PyTorch's steps by whether features are kept."""
    torch.set_num_threads(1)
    kind, teacher = steps.find_network(case, CPU)
    batch = steps.Batch.of(case, kind)
    modes = [False, True] if kind.keeps(case.detector.config) else [False]
    return batch, {
        kept: steps.make_step(case, kind, teacher, CPU, batch, kept=kept) for kept in modes
    }


def our_losses(case, batch, count):
    """Losses of our steps, each with the draws of the first."""
    config, variables = case.detector.config, case.variables
    key = jax.random.fold_in(gradient_phase.training_key(case.seed), 0)
    state = gradient_phase.init_state(config, variables, case_steps(case))
    optimizer = make_optimizer(config, case_steps(case))

    @jax.jit
    def step(params, stats, opt_state):
        def loss(params):
            (found, _), changed = case.detector.apply(
                variables | {"params": params, "batch_stats": stats}, as_float(batch.images),
                method="image_loss", mutable=["batch_stats"], rngs={"noise": key},
            )  # fmt: skip
            return found, changed.get("batch_stats", {})

        (found, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return found, (optax.apply_updates(params, updates), stats, opt_state)

    state, losses = (state["params"], state["batch_stats"], state["opt_state"]), []
    for _ in range(count):
        loss, state = step(*state)
        losses.append(float(loss))
    return losses


def case_steps(case):
    config = case.detector.config
    return gradient_phase.epoch_steps(COUNT, config) * config.epochs


@pytest.mark.parametrize("method", [
    "cfa", "csflow", "cutpaste", "draem", "fastflow", "favae", "rd4ad", "stpm",
])  # fmt: skip
def test_losses_are_ours_step_by_step(method):
    case = subject(method)
    batch, made = make_steps(case)
    expected = our_losses(case, batch, 4)
    assert batch.loss == pytest.approx(expected[0], rel=1e-5)
    assert len(set(expected)) == 4
    for step in made.values():
        losses = [float(step()) for _ in range(4)]
        assert losses[0] == pytest.approx(expected[0], rel=1e-5)
        # Adam's first steps go by the signs of gradients, so that errors of float32 grow.
        assert losses == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("settings", [
    {"optimizer": "sgd", "weight_decay": 0.1, "schedule": "cosine"},
    {"optimizer": "adam", "weight_decay": 0.1, "epsilon": 1e-4, "gradient_clip": 0.5},
    {"optimizer": "adamw", "weight_decay": 0.1, "amsgrad": True, "beta1": 0.5},
    {"optimizer": "adam", "schedule": "step", "decay_at": (0.2, 0.6)},
])  # fmt: skip
def test_its_optimisers_take_our_steps(settings):
    config = TrainedConfig(learning_rate=0.1, **settings)
    start = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    slopes = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    slopes[1:] *= 0.1  # so that a maximum of the second moments differs from the last
    ours, optimizer = {"a": start}, make_optimizer(config, len(slopes))
    state = optimizer.init(ours)
    theirs = torch.from_numpy(start.copy()).requires_grad_()
    their_optimizer = optimizers.Optimizer([theirs], config, len(slopes))
    for slope in slopes:
        updates, state = optimizer.update({"a": slope}, state, ours)
        ours = optax.apply_updates(ours, updates)
        theirs.grad = torch.from_numpy(slope.copy())
        their_optimizer.step()
        np.testing.assert_allclose(theirs.detach().numpy(), ours["a"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "overrides"), [
    ("favae", {"augment": True, "cache_features": False, "normalize_teacher": False}),
    ("cutpaste", {"patch_size": 32, "variant": "union", "head_dim": 0}),
    ("favae", {"backbone": "vgg16", "layers": "relu8,relu15,relu22"}),
])  # fmt: skip
def test_first_losses_with_other_settings(method, overrides):
    case = subject(method, **overrides)
    batch, made = make_steps(case)
    for step in made.values():
        assert float(step()) == pytest.approx(batch.loss, rel=1e-5)


@pytest.mark.parametrize(("method", "overrides", "message"), [
    ("padim", {}, "PaDiM is not built here; expected CFA, CSFlow, "),
    ("stpm", {"dtype": "bfloat16"}, "dtype=bfloat16; expected float32"),
    ("rd4ad", {"backbone": "efficientnet_lite0"}, "RD4AD with efficientnet_lite0 with outputs "),
    ("cutpaste", {"backbone": "vgg16", "embedding_layer": "layer2"}, "a trained vgg16"),
])  # fmt: skip
def test_what_is_not_built_is_refused(method, overrides, message):
    detector, variables = make(method, **overrides)
    case = workloads.Subject(
        detector=detector, variables=variables, images=images(COUNT),
        parallel=Parallel(jax.local_devices()[:1]), seed=0, options=workloads.Options(),
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        steps.compare(case)


@pytest.mark.slow
def test_all_parts_are_timed():
    case = subject("stpm")
    found = steps.compare(case)
    assert not found["notes"]
    assert list(found["parts"]) == [
        "backbone", "backbone, torch.compile", "training step", "training step, torch.compile",
        "training step, features kept", "training step, features kept, torch.compile",
    ]  # fmt: skip
    for part in found["parts"].values():
        assert part["difference"] < 1e-4
        assert part["ratio"] == pytest.approx(part["theirs_s"]["median"] / part["ours_s"]["median"])


def test_what_pytorch_does_not_draw_is_timed_and_named(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = steps.compare(subject("draem"))
    assert list(found["parts"]) == ["training step"]
    limits, note = found["notes"]
    assert limits.startswith("PyTorch is limited by ONEDNN_MAX_CPU_ISA=AVX2, ")
    assert re.fullmatch(
        r"in PyTorch's favour, anomalies are drawn by ours in every step, by PyTorch in none; "
        r"alone that takes [\d.]+ s", note,
    )  # fmt: skip


def test_what_pytorch_cannot_compile_is_named_and_the_rest_stays(monkeypatch):
    def broken(work):
        def call(*_):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(steps, "HOW", {steps.EAGER: steps.HOW[steps.EAGER], ", broken": broken})
    found = steps.compare(subject("fastflow"))
    assert list(found["parts"]) == ["backbone", "training step", "training step, features kept"]
    assert found["notes"] == [
        f"{work}, broken: no compiler"
        for work in ("backbone", "training step", "training step, features kept")
    ]


@pytest.mark.parametrize("broken", [float("nan"), 2e24])
def test_what_pytorch_computes_otherwise_is_named_and_not_timed(broken, monkeypatch):
    def wrong(work):
        return lambda *given: jax.tree.map(lambda x: x * broken, work(*given))

    monkeypatch.setattr(steps, "HOW", {steps.EAGER: steps.HOW[steps.EAGER], ", wrong": wrong})
    found = steps.compare(subject("fastflow"))
    assert list(found["parts"]) == ["backbone", "training step", "training step, features kept"]
    assert len(found["notes"]) == 3
    for note in found["notes"]:
        assert re.fullmatch(
            r".*, wrong: another result than ours, by (nan|\de\+\d+) of its size; not timed", note
        )
