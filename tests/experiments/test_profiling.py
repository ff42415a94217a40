"""The largest operations: of made-up events, and of a real trace."""

import jax
import pytest

from imvad_jax.benchmarks import profiling, workloads
from imvad_jax.benchmarks.profiling import Event
from imvad_jax.training.parallel import Parallel
from tests.training import toy


def test_an_operation_is_counted_without_what_runs_within_it():
    second = 10**9
    thread = [
        Event(0, 10 * second, "while.1", "step", "1"),
        Event(0, 4 * second, "dot.2", "step", "1"),
        Event(1 * second, 2 * second, "add.3", "step", "1"),
        Event(5 * second, 6 * second, "dot.2", "step", "1"),
        Event(12 * second, 13 * second, "dot.2", "step", "2"),
    ]
    programs = [
        ("step", {"while.1": "", "dot.2": "layer/dot", "add.3": "layer/add"}),
        ("step", {"dot.2": "other/dot"}),  # may be the second; so may the first
        ("init", {"while.1": "", "dot.2": "", "add.3": ""}),
    ]
    other = [Event(0, 3.5 * second, "add.3", "step", "1")]
    found = profiling.own_times([thread, other], programs)
    assert [tuple(operation) for operation in found] == [
        ("add.3", "step", 2, 4.5, "layer/add"),
        ("dot.2", "step", 2, 4.0, "layer/dot"),  # 4 - 1 and 1
        ("dot.2", "step", 1, 1.0, ""),
    ]


def test_traces_name_the_operations_of_training_fit_and_scoring(tmp_path):
    detector, variables = toy.make(batch_size=2, epochs=1)
    subject = workloads.Subject(
        detector=detector, variables=variables, images=workloads.random_images(2, 64, 0),
        parallel=Parallel(jax.devices()[:1]), seed=0, options=workloads.Options(),
    )  # fmt: skip
    said = []
    found = profiling.profile(subject, subject, tmp_path, said.append)
    assert list(found) == ["training", "fit", "scoring"]
    for name, traced in found.items():
        operations = traced["operations"]
        assert 0 < len(operations) <= profiling.LARGEST
        assert operations[0]["seconds"] == max(o["seconds"] for o in operations) > 0
        assert sum(o["share"] for o in operations) == pytest.approx(
            sum(o["seconds"] for o in operations) / traced["seconds"]
        )
        assert list((tmp_path / name).rglob("*.trace.json.gz"))
    training = found["training"]["operations"]
    assert max(o["count"] for o in training) >= profiling.BATCHES
    assert any("onv" in o["source"] for o in training), training
    assert training[0]["name"] in said[1] and str(tmp_path / "training") in said[1]
