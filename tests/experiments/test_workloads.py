"""What the benchmark measures: on the baseline and the smallest trained method."""

import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax import presets
from imvad_jax.benchmarks import measure_method, workloads
from imvad_jax.benchmarks import report as benchmarks
from imvad_jax.errors import UserError
from imvad_jax.model.make import assemble
from imvad_jax.runs import memory
from imvad_jax.runs.record import matmul_precision
from imvad_jax.training.limit import NO_LIMIT, Limit, Stopped
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import COMPILES
from tests.methods.small import fitted, make
from tests.training import toy

FEW = workloads.Options(repeats=2, least_seconds=0.0, fit_repeats=1)


def refuse(subject):
    raise UserError("not built")


@pytest.fixture(scope="module")
def record():
    overrides = {"batch_size": "5"}
    config = presets.resolve("raw_color", "smoke", overrides)
    parallel = Parallel(jax.devices()[:2])
    about = {"preset": "smoke", "overrides": overrides, "parallel": parallel}
    model = assemble("raw_color", config, "random", 0, **about)
    images = workloads.random_images(10, config.input_size, 0)
    return measure_method.benchmark(
        model, images, FEW, command="benchmark ...", log=lambda _: None,
        comparisons={"another": lambda s: {"seen": sorted(s.variables["memory"])}, "none": refuse},
    )  # fmt: skip


def test_the_baseline_is_fitted_and_scored(record):
    assert record["method"] == "raw_color" and record["num_devices"] == 2 and record["commit"]
    one, batch = record["scoring"]
    assert (one["batch_size"], one["devices"]) == (1, 1)
    assert (batch["batch_size"], batch["devices"]) == (6, 2)  # rounded up, as score() does
    for part in (one, batch):
        assert part["compile_s"] > 0 and part["latency_s"]["repeats"] == 2
        step = part["step_s"]
        assert 0 < step["min"] <= step["median"] <= step["max"]
        assert part["images_per_s"] == pytest.approx(part["batch_size"] / step["median"])
        assert part["flops_per_s"] == pytest.approx(part["flops"] / step["median"])
    assert batch["flops"] == 6 * one["flops"] > 0
    assert record["end_to_end"]["images"] == record["fit"]["images"] == 10
    assert record["fit"]["first_s"] > 0 and record["fit"]["seconds"]["repeats"] == 1
    assert record["product"]["flops_per_s"] > 0 and record["memory"]["bytes"] > 2**20
    assert "training" not in record and record["fit"]["epochs"] is None
    assert record["compare"]["another"] == {"seen": ["mean", "whitening"]}
    assert record["compare"]["none"] == {"error": "not built", "parts": {}}  # nothing is lost


def raw_color_benchmark(limit=NO_LIMIT, sizes=(1, 2, 4)):
    config = presets.resolve("raw_color", "smoke", {})
    parallel = Parallel(jax.devices()[:1])
    model = assemble("raw_color", config, "random", 0, preset="smoke", parallel=parallel)
    options = dataclasses.replace(FEW, score_batches=sizes)
    images = workloads.random_images(10, config.input_size, 0)
    return measure_method.benchmark(model, images, options, log=lambda _: None, limit=limit)


def test_what_there_is_no_time_for_is_named():
    class Short(Limit):
        """Has time for the smallest batch alone."""

        def require(self, seconds, what):
            if what != "scoring at 1":
                raise Stopped(f"{what} needs too long")

    record = raw_color_benchmark(Short())
    assert [part["batch_size"] for part in record["scoring"]] == [1]
    assert record["left"] == "scoring at 2 needs too long" and record["end_to_end"] is None
    assert "raw_color (smoke)" in benchmarks.format_tables([record])


def test_what_there_is_no_memory_for_is_named(monkeypatch):
    def scoring(subject, size, measured=workloads.scoring):
        if size == 4:
            raise UserError("needs 9 GiB of memory, 1 GiB are available")
        return measured(subject, size)

    monkeypatch.setattr(workloads, "scoring", scoring)
    record = raw_color_benchmark()
    assert [part["batch_size"] for part in record["scoring"]] == [1, 2]
    assert "scoring at 4: needs 9 GiB of memory, 1 GiB are available" in record["notes"]
    assert "left" not in record and record["end_to_end"]


def test_a_program_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**30)
    parallel = Parallel(jax.devices()[:2])
    memory.check_program(2**29, parallel)
    with pytest.raises(UserError, match="needs 1.50 GiB of memory, 1.00 GiB are available"):
        memory.check_program(3 * 2**28, parallel)


def test_precision_of_products_is_on_record(record):
    assert record["matmul_precision"] == "float32"  # whatever was asked for: it is a CPU
    with jax.default_matmul_precision("highest"):
        assert matmul_precision("gpu") == "float32"
    assert matmul_precision("gpu") == "default"


def test_its_record_can_be_shown(record):
    text = benchmarks.format_tables([record | {"compare": {}}])
    assert "raw_color (smoke, batch_size=5)" in text


@pytest.fixture(scope="module")
def trained():
    detector, variables = toy.make(batch_size=8)
    images = workloads.random_images(5, 64, 0)  # fewer than a batch
    return workloads.Subject(
        detector=detector, variables=variables, images=images,
        parallel=Parallel(jax.devices()[:2]), seed=0, options=FEW,
    )  # fmt: skip


def test_the_training_step_is_the_real_one_and_goes_on(trained):
    found, call = workloads.training_call(trained, cache_features=False)
    assert (found["batch_size"], found["devices"]) == (8, 2) and found["flops_complete"]
    down, up = 2 * 16 * 16 * 8 * 3 * 3 * 3, 2 * 16 * 16 * 3 * 8 * 4 * 4  # operations of a layer
    assert found["flops"] == 8 * (2 * down + 3 * up)  # of images there is no gradient
    assert found["input_bytes_of_an_image"] == 64 * 64 * 3
    before = jax.tree.map(np.array, trained.variables["params"])
    programs = COMPILES.programs
    call(2)
    call(1)
    assert COMPILES.programs == programs  # what was timed as compilation is what runs
    for kept, now in zip(jax.tree.leaves(before), jax.tree.leaves(trained.variables["params"])):
        np.testing.assert_array_equal(kept, now)  # the donated state was a copy


def test_convolutions_are_counted_as_direct_ones_in_any_form():
    found = {}
    for form in ("auto", "xla"):
        # Of 128 pixels the layers are just large enough for Winograd.
        detector, variables = make(
            "stpm", image_size=128, crop_size=0, layers="layer1", batch_size=2, convolution=form
        )
        subject = workloads.Subject(
            detector=detector, variables=variables, images=workloads.random_images(2, 128, 0),
            parallel=Parallel(jax.devices()[:1]), seed=0, options=FEW,
        )  # fmt: skip
        found[form] = workloads.scoring(subject, 1), workloads.training_call(subject, False)[0]
    for auto, xla in zip(*found.values(), strict=True):
        assert auto["flops"] == xla["flops"] and auto["flops_complete"]
    # Teacher and student: conv1 of 7x7 and four of 3x3 at a quarter of the size.
    least = 2 * 2 * (64 * 64 * 64 * 3 * 49 + 4 * 32 * 32 * 64 * 64 * 9)
    assert least <= found["auto"][0]["flops"] < 1.1 * least


def test_rows_that_pad_a_bank_do_not_count():
    detector, variables, _ = fitted("patchcore")
    subject = workloads.Subject(
        detector=detector, variables=variables, images=workloads.random_images(2, 64, 0),
        parallel=Parallel(jax.devices()[:1]), seed=0, options=FEW,
    )  # fmt: skip
    found = workloads.scoring(subject, 1)
    detector_flops = 2 * detector.positions * detector.config.embedding_dim
    memory = variables["memory"]
    rows = int(memory["bank_count"])
    assert found["flops_complete"] and rows < len(memory["bank"])
    subject.variables = variables | {
        "memory": memory | {"bank": memory["bank"][: rows // 2], "bank_count": np.int32(rows // 2)}
    }
    fewer = workloads.scoring(subject, 1)["flops"]
    assert found["flops"] - fewer == detector_flops * (rows - rows // 2)


def test_kept_and_recomputed_features_are_compared(trained):
    found = workloads.kept_features(trained)
    assert found["bytes_of_an_image"] == 64 * 64 * 3 * 4  # the toy keeps the images as floats
    for kind in ("wall", "cpu"):
        medians = [found[name][f"{kind}_s"]["median"] for name in ("kept", "recomputed")]
        assert found[f"{kind}_ratio"] == pytest.approx(medians[0] / medians[1])


def test_a_phase_before_the_training_is_run(trained):
    assert workloads.before_training(trained).keys() == trained.variables.keys()


@pytest.mark.parametrize("text", ["0", "4,many", "-1", "1.5", ","])
def test_batch_sizes_are_whole_numbers(text):
    assert workloads.parse_batches(["32", "4", "32"]) == (1, 4, 32)
    assert workloads.parse_batches([]) == ()
    with pytest.raises(UserError, match=f"score_batches={text}: expected numbers"):
        workloads.parse_batches(text.split(","))
