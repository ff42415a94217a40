"""What becomes of steps: finished, failed, ended at their time, and gone on with."""

import json
import sys
import time
import zipfile
from pathlib import Path

import pytest

from imvad_jax.benchmarks.suite import files, plan, processes, suite, summary
from imvad_jax.benchmarks.suite.agreement import compare
from imvad_jax.errors import UserError
from imvad_jax.marks import is_ours
from imvad_jax.training.limit import Limit

PRODUCT = {"dtype": "float32", "precision": "default", "computed_in": "float32", "error": 1e-7,
           "size": 8, "flops_per_s": 1e12}  # fmt: skip
DEVICE = {
    "platform": "cpu", "kind": "toy", "devices": 1, "memory_bytes": None,
    "versions": {"jax": "0"}, "products": [PRODUCT],
    "copies": {"device_bytes_per_s": 1e9, "to_device_bytes_per_s": 1e9,
               "from_device_bytes_per_s": 1e9},
}  # fmt: skip


def step(out, name, code, part="c", **options):
    folder = out / "work" / name
    options = {"needs": 0.0, "limited": False} | options
    return plan.Step(part, name, ("-c", code), "device", folder, **options)


def writes(folder):
    text = json.dumps(DEVICE)
    return f"import os; os.makedirs({str(folder)!r}); " \
           f"open({str(folder / 'device.json')!r}, 'w').write({text!r})"  # fmt: skip


def opened(out, steps):
    return suite.open_suite(out, steps, {"weights": "w"}, "command")


def quiet(text):
    """Says nothing."""


def test_steps_are_made_once_and_a_failed_one_again(tmp_path):
    out = tmp_path / "out"
    good = step(out, "good", writes(out / "work" / "good"), "a")
    bad = step(out, "bad", "raise SystemExit('error: no such thing')")
    steps = [good, bad]
    made = opened(out, steps)
    assert not suite.make(made, Limit(), log=quiet)
    states = json.loads((out / "suite.json").read_text())["steps"]
    assert states["good"]["state"] == "done"
    assert states["bad"] | {"seconds": 0} == {
        "part": "c", "state": "failed", "why": "error: no such thing", "tries": 1, "seconds": 0
    }  # fmt: skip
    assert json.loads((out / "benchmarks" / "device.json").read_text())["device"]["kind"] == "toy"
    again = opened(out, steps)
    assert [s.name for s in again.waiting()] == ["bad"]
    suite.make(again, Limit(), log=quiet)
    assert again.states["good"]["tries"] == 1 and again.states["bad"]["tries"] == 2


def test_step_is_ended_at_its_time_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, signal, time; signal.signal(15, signal.SIG_IGN); " \
            f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"  # fmt: skip
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    status = processes.run([sys.executable, "-c", code], {}, tmp_path / "log.txt", 1.5, Limit())
    assert status == 75 and time.monotonic() - start < 8
    stat, end = Path("/proc", pid.read_text(), "stat"), time.monotonic() + 5
    while stat.exists() and ") Z" not in stat.read_text():  # a zombie has ended
        assert time.monotonic() < end, "the child of the step still runs"
        time.sleep(0.1)


def test_what_does_not_fit_is_left_and_named(tmp_path):
    out = tmp_path / "out"
    steps = [step(out, "one", "pass", needs=50.0), step(out, "two", "pass", "d", needs=1e6)]
    made = opened(out, steps)
    limit = Limit(20.0)
    with pytest.raises(UserError, match="time_limit=20s: the first part needs about 58 s"):
        suite.check_fits(made, limit, "20s")
    assert not suite.make(made, limit, log=quiet)
    assert {made.state_of(s)["state"] for s in steps} == {"left"}
    assert made.state_of(steps[0])["why"].startswith("not begun: ")
    lines = suite.close(made, 1.0, 20.0)
    assert any(line.startswith("left: c one: not begun") for line in lines)


def test_steps_of_c_that_were_tried_least_come_first(tmp_path):
    steps = [step(tmp_path, name, "pass") for name in ("one", "two")]
    made = opened(tmp_path / "out", steps)
    made.note(steps[0], tries=1)
    assert [s.name for s in made.waiting()] == ["two", "one"]


def test_what_a_step_requires(tmp_path):
    out = tmp_path / "out"
    steps = [step(out, "one", "pass", requires=tmp_path / "missing")]
    made = opened(out, steps)
    suite.make(made, Limit(), log=quiet)
    assert made.state_of(steps[0])["why"] == "not begun: what it needs is not finished"


def test_another_suite_and_other_files_are_refused(tmp_path):
    out = tmp_path / "out"
    opened(out, []).save()
    with pytest.raises(UserError, match="holds a suite of another weights"):
        suite.open_suite(out, [], {"weights": "other"}, "command")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="out=.*holds other files \\(thesis.txt\\)"):
        opened(other, [])
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


def test_archive_has_plain_names_and_all_files(tmp_path):
    out = tmp_path / "out"
    made = opened(out, [])
    made.save()
    for name in ("results/a.json", "benchmarks/b.json", "logs/c.txt", "work/d/e.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    suite.close(made, 1.0, None)
    with zipfile.ZipFile(out / "suite.zip") as archive:
        names = archive.namelist()
    assert names == ["suite.json", "summary.txt", "results/a.json", "benchmarks/b.json",
                     "logs/c.txt"]  # fmt: skip
    assert is_ours(out / "suite.zip") and is_ours(out / "summary.txt")
    (out / "results" / "b_c.json").write_text("{}")
    with pytest.raises(ValueError, match="b_c.json: expected letters, digits"):
        files.write_archive(out)


@pytest.mark.parametrize(
    ("text", "name"),
    [("mvtec_ad.bottle.padim.official-resnet18,coreset_ratio=0.01-seed0.json",
      "mvtec-ad.bottle.padim.official-resnet18-coreset-ratio-0.01-seed0.json")],
)  # fmt: skip
def test_plain_name(text, name):
    assert files.plain_name(text) == name


def test_summary_is_short(tmp_path):
    out = tmp_path / "out"
    steps = [step(out, f"s{number}", "pass") for number in range(60)]
    assert len(suite.close(opened(out, steps), 1.0, 60.0)) <= 40


def test_weights_of_another_network_are_refused(tmp_path):
    import numpy as np

    path = tmp_path / "w.npz"
    np.savez(path, weight=np.zeros(3, np.float32))
    with pytest.raises(UserError, match="weights: expected those of resnet18; .*is missing"):
        suite.check_weights(str(path))
    with pytest.raises(UserError, match="no such file"):
        suite.check_weights(str(tmp_path / "none.npz"))


def test_agreement_is_relative_to_the_range(tmp_path):
    import numpy as np

    for name, shift in (("cpu", 0.0), ("device", 0.02)):
        (tmp_path / name).mkdir()
        maps = np.array([[[1.0, 5.0]], [[2.0, 3.0]]]) + 2 * shift
        np.savez(tmp_path / name / "predictions.npz", path=np.array(["a", "b"]),
                 image_score=np.array([1.0, 3.0]) + shift, anomaly_map=maps)  # fmt: skip
    found = compare(tmp_path / "device", tmp_path / "cpu", "float32", 1e-3)
    assert found["score_difference"] == pytest.approx(0.01)
    assert found["map_difference"] == pytest.approx(0.01)
    assert not found["within"]
    assert compare(tmp_path / "device", tmp_path / "cpu", "default", 2e-2)["within"]


def test_summary_shows_epochs_beside_as_many_compiled_steps_of_pytorch(tmp_path):
    def entry(method):
        loops = {name: {"epoch_s": {"median": s}} for name, s in (("host", 2.0), ("device", 1.5))}
        return {"method": method, "steps": 7, **loops}

    parts = {"training step, torch.compile": {"theirs_s": {"median": 0.5}}}
    torch = {"method": "stpm", "compare": {"torch_steps": {"parts": parts}}}
    for name, found in (
        ("loops", {"loops": [entry("stpm"), entry("draem")]}), ("torch", {"records": [torch]})
    ):  # fmt: skip
        files.write_json(tmp_path / "benchmarks" / f"{name}.json", found)
    assert summary._loops(tmp_path) == [
        "seconds of an epoch:",
        "stpm, 7 steps: loop on the host 2.00 s, on the device 1.50 s; "
        "steps of torch.compile 3.50 s",
        "draem, 7 steps: loop on the host 2.00 s, on the device 1.50 s",
    ]
