"""Collects the output of a step's program into result and benchmark files."""

from pathlib import Path

from imvad_jax.benchmarks.report import read_benchmark
from imvad_jax.benchmarks.suite import agreement, plan
from imvad_jax.benchmarks.suite.files import plain_name, read_json, write_json
from imvad_jax.reporting.result_files import FLOAT32, products_of


def collect(step: plan.Step, out: Path, command: str) -> None:
    """Writes what a step has finished below `results` or `benchmarks`; also of one that was ended.

    Raises:
      UserError: a file is damaged, or of somebody else.
    """
    collectors = {"device": _device, "table": _results, "score": _agreement,
                  "benchmark": _benchmark, "loops": _loops}  # fmt: skip
    collectors[step.kind](step, out, command)


def _device(step: plan.Step, out: Path, command: str) -> None:
    found = read_json(step.folder / "device.json")
    if found:
        found.pop("mark", None)
        write_json(out / "benchmarks" / "device.json",
                   {"command": command, "records": [], "device": found})  # fmt: skip


def _results(step: plan.Step, out: Path, command: str) -> None:
    top = step.folder.with_name(step.folder.name + "-results")
    for path in sorted(top.rglob("*.json")):
        found = read_json(path)
        if found:
            name = plain_name(".".join(path.relative_to(top).parts))
            write_json(out / "results" / name, found)


def _agreement(step: plan.Step, out: Path, command: str) -> None:
    """Compares the scores on the device with those on the CPU, as soon as both are there."""
    work = step.folder.parent
    cpu, highest = work / "scores-cpu", work / "scores-highest"
    assert step.requires  # the run whose scores are compared
    run = step.requires.parent
    if not (cpu / "metrics.json").is_file():
        return
    record = read_json(run / "config.json") or {}
    products = products_of(record)
    exact = products == FLOAT32
    found = [agreement.compare(run, cpu, products,
                               agreement.EXACT if exact else agreement.FASTER)]  # fmt: skip
    if not exact and (highest / "metrics.json").is_file():  # else it is the same again
        products = products_of(read_json(highest / "config.json") or {})
        found.append(agreement.compare(highest, cpu, products, agreement.EXACT))
    shared = {key: record.get(key) for key in ("method", "title", "preset", "category", "config",
                                               "hardware", "versions", "commit")}  # fmt: skip
    write_json(out / "benchmarks" / "agreement.json", {
        "command": command, "records": [], "agreement": [shared | entry for entry in found]
    })  # fmt: skip


def _benchmark(step: plan.Step, out: Path, command: str) -> None:
    """Adds the record of a method to those of its part."""
    path = step.folder / "benchmark.json"
    if not path.is_file():
        return
    name = {"c": "rates", "d": "torch", "e": "bfloat16"}[step.part]
    place = out / "benchmarks" / f"{name}.json"
    records = {r["method"]: r for r in (read_json(place) or {}).get("records", ())}
    records |= {record["method"]: record for record in read_benchmark(path)["records"]}
    write_json(place, {"command": command, "records": list(records.values())})


def _loops(step: plan.Step, out: Path, command: str) -> None:
    """Adds the epochs of a method to those of the others."""
    found, place = read_json(step.folder / "loops.json"), out / "benchmarks" / "loops.json"
    if found:
        entries = {e["method"]: e for e in (read_json(place) or {}).get("loops", ())}
        entries |= {entry["method"]: entry for entry in found["loops"]}
        write_json(place, {"command": command, "records": [], "loops": list(entries.values())})
