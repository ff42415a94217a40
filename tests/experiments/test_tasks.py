"""Which cells a table consists of, who makes them, and how long it will take. Nothing is fitted."""

import json
import os
import sys

import pytest

from imvad_jax import presets, sealed
from imvad_jax.errors import UserError
from imvad_jax.reporting.grid import ERROR
from imvad_jax.runs import plan, tasks, worker_pool, workers
from imvad_jax.runs.tasks import Task
from imvad_jax.runs.time_left import TimeLeft, format_seconds


def task(tmp_path, method="padim", category="bottle", seed=0, **changes):
    values = {"preset": "smoke", "overrides": {}, "dataset": "mvtec_ad", "data_dir": "DATA",
              "weights": "random", "workdir": str(tmp_path), "decoded_dir": None,
              "results_dir": "", "options": {}}  # fmt: skip
    return Task(method=method, category=category, seed=seed, **values | changes)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_share_every_cell_exactly_once(tmp_path, shards):
    cells = [task(tmp_path, m, c) for m in ("padim", "spade", "stpm") for c in "abcd"]
    parts = [plan.deal(cells, f"{i + 1}/{shards}") for i in range(shards)]
    assert sorted(t.path for part in parts for t in part) == sorted(t.path for t in cells)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shard", ["", "0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_shard_is_refused(shard):
    with pytest.raises(UserError, match="expected i/n"):
        plan.deal([], shard)


def test_a_task_travels_as_json_and_names_its_command(tmp_path):
    one = task(tmp_path, overrides={"sigma": "2.0"}, category="metal nut")
    assert Task.from_json(one.to_json()) == one and "\n" not in one.to_json()
    assert one.path == "padim/metal nut/smoke-seed0"
    assert one.command.startswith("imvad run --method=padim --preset=smoke")
    assert "--sigma=2.0" in one.command and "'--category=metal nut'" in one.command
    assert "--tile" not in one.command and one.tiling is None


def test_methods_stand_in_order_with_the_baseline_last():
    everything = plan.choose_methods(["all"])
    assert len(everything) == 12 and everything[-1] == "raw_color"
    assert plan.choose_methods(["stpm", "raw_color", "cfa", "cfa"]) == ["cfa", "stpm", "raw_color"]
    with pytest.raises(UserError, match="did you mean 'padim'"):
        plan.choose_methods(["padm"])


def test_every_method_has_every_budget():
    for method in plan.choose_methods(["all"]):
        assert set(plan.BUDGETS.values()) <= set(presets.of(method))


def test_overrides_go_to_the_methods_that_have_them():
    given = {"backbone": "resnet34", "sigma": "2", "epochs": "3"}
    assert plan.overrides_for("padim", "smoke", given) == {"backbone": "resnet34", "sigma": "2"}
    assert plan.overrides_for("draem", "smoke", given) == {"epochs": "3"}
    assert plan.overrides_for("raw_color", "smoke", given) == {}


def test_weights_by_backbone(tmp_path):
    file = tmp_path / "a=b.npz"
    file.touch()
    weights = plan.parse_weights(f"resnet18={file},hub")
    assert weights == {"resnet18": str(file), "": "hub"}
    assert plan.parse_weights(str(file)) == {"": str(file)}

    def of(method, preset, weights=weights):
        return plan.weights_for(presets.resolve(method, preset, {}), method, weights)

    assert of("padim", "smoke") == str(file)
    assert of("padim", "official") == "hub:timm/wide_resnet50_2.tv_in1k@main"
    assert of("draem", "smoke") is of("cutpaste", "smoke") is of("raw_color", "smoke") is None
    with pytest.raises(UserError, match=r"none for resnet18.*weights=hub"):
        of("padim", "smoke", {})
    with pytest.raises(UserError, match=r"nowhere\.npz: no such file"):
        of("padim", "smoke", {"": "nowhere.npz"})
    with pytest.raises(UserError, match="more than one for resnet18"):
        plan.parse_weights("resnet18=a,resnet18=b")


def test_another_run_in_a_cells_place_is_refused(tmp_path):
    one = task(tmp_path)
    tasks.check_same(one)  # nothing there
    one.run_dir.mkdir(parents=True)
    (one.run_dir / "config.json").write_text(json.dumps(one.record()))
    tasks.check_same(one)
    for other, words in (
        (task(tmp_path, overrides={"sigma": "7"}), "config.sigma 4.0 there, 7.0 now"),
        (task(tmp_path, weights="hub:a/b@main"), "weights random there"),
        (task(tmp_path, dataset="folder"), "dataset mvtec_ad there"),
        (task(tmp_path, tile=64, overlap=8), "tile 0 there, 64 now; overlap 0 there, 8 now"),
    ):
        with pytest.raises(UserError, match=words):
            tasks.check_same(other)
    spade = task(tmp_path, "spade")
    spade.run_dir.mkdir(parents=True)
    fallback = spade.record()
    fallback["config"]["pooled_layer"] = "layer3"  # as where the weights lack layer4
    (spade.run_dir / "config.json").write_text(json.dumps(fallback))
    tasks.check_same(spade)


WORKER = r"""
import json, os, signal, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    print("working on", task["category"], file=sys.stderr, flush=True)
    if task["category"] == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if task["category"] == "leaver":
        sys.exit(3)
    error = "bad image" if task["category"] == "bad" else None
    print(json.dumps({"path": task["method"], "error": error, "process": os.getpid()}), flush=True)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_replaced_and_its_cell_marked(tmp_path, workers):
    names = ["a", "killer", "bad", "leaver", "b"]
    cells = [task(tmp_path, m, c) for m in ("padim", "spade", "stpm") for c in names]
    logs = [tmp_path / f"logs/{i}.log" for i in range(workers)]
    pool = worker_pool.Pool([sys.executable, "-c", WORKER], [{}] * workers, logs)
    begun, ended = [], {}

    def on_event(event):
        if event is None:
            return
        if event.seconds is None:
            begun.append(event.task)
        else:
            ended[event.task.path] = event.error

    pool.run(cells, on_event)
    assert sorted(t.path for t in begun) == sorted(t.path for t in cells)
    assert len(begun) == len(ended) == len(cells)
    for cell in cells:
        error = ended[cell.path]
        if cell.category in ("a", "b"):
            assert error is None
        elif cell.category == "bad":
            assert error == "bad image"
        else:
            words = "killed by SIGKILL" if cell.category == "killer" else "ended with status 3"
            assert words in error and f"working on {cell.category}" in error
            stored = sealed.read(cell.run_dir / ERROR)
            assert stored["error"] == error and stored["method"] == cell.method


def test_workers_that_do_not_start_end_the_program_and_mark_nothing(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('error: --num_devices=99')"]
    logs = [tmp_path / f"logs/{i}.log" for i in range(2)]
    pool = worker_pool.Pool(command, [{}] * 2, logs)
    with pytest.raises(UserError, match=r"did not start: .*status 1; .*num_devices=99"):
        pool.run([task(tmp_path, c) for c in ("padim", "spade", "stpm")], lambda event: None)
    assert not list(tmp_path.rglob(ERROR))


def test_one_worker_keeps_a_methods_cells_together(tmp_path):
    cells = [task(tmp_path, m, c) for c in "ab" for m in ("padim", "spade")]
    groups = worker_pool.by_method(cells)
    assert [[t.path.split("/")[0] for t in group] for group in groups] == [
        ["padim"] * 2, ["spade"] * 2,
    ]  # fmt: skip


def test_each_worker_sees_its_own_accelerator():
    assert workers.environments("gpu", 1) == [{}]
    assert workers.environments("gpu", 2) == [
        {"JAX_CUDA_VISIBLE_DEVICES": "0"}, {"JAX_CUDA_VISIBLE_DEVICES": "1"},
    ]  # fmt: skip
    assert workers.environments("tpu", 4)[3]["TPU_VISIBLE_DEVICES"] == "3"
    assert not set(workers.environments("gpu", 2)[0]) & set(os.environ)


def test_time_left():
    left = TimeLeft()
    assert left.of([]) == 0 and left.of(["padim"]) is None
    left.add("padim", 60.0)  # with compilation
    assert left.of(["padim", "padim"]) == 120
    for seconds in (10.0, 12.0, 14.0):
        left.add("padim", seconds)
    assert left.of(["padim", "padim"]) == 24
    # Of a method not yet seen the first cell is as other methods' first, the rest as theirs.
    assert left.of(["padim", "spade", "spade", "spade"]) == 12 + 60 + 2 * 12
    assert TimeLeft(2).of([]) == 0
    both = TimeLeft(2)
    both.add("padim", 8.0)
    assert both.of(["padim"] * 4) == 16


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (8.4, "8 s"), (240, "4 min"), (7500, "2 h 05 min")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
