"""The summary at the end of the suite: the most important figures, in at most 40 lines."""

from pathlib import Path

from imvad_jax.benchmarks.columns import label_of, number
from imvad_jax.benchmarks.suite.files import ARCHIVE, STATE, read_json
from imvad_jax.reporting.metric_names import format_value
from imvad_jax.reporting.result_files import settings_text
from imvad_jax.training.limit import in_words

MOST_LINES = 40
_NAMED = 12  # lines on steps that are not finished


def summarize(suite, seconds: float, given: float | None) -> list[str]:
    """The lines of a `suite.Suite` after so many seconds of `given` ones (None: no limit)."""
    out = suite.out
    lines = [
        *_device(out), *_metrics(out), *_agreement(out), *_rates(out, "rates"),
        *_compared(out), *_rates(out, "bfloat16"), *_loops(out),
    ]  # fmt: skip
    end = [*_unfinished(suite), _end(suite, seconds, given)]
    return [*lines[: MOST_LINES - len(end)], *end]


def _end(suite, seconds: float, given: float | None) -> str:
    done = sum(suite.state_of(step)["state"] == "done" for step in suite.steps)
    of = f" of {in_words(given)}" if given else ""
    return f"{done} of {len(suite.steps)} steps in {in_words(seconds)}{of}: {suite.out / ARCHIVE}"


def _unfinished(suite) -> list[str]:
    """A line for all steps of a part that are not done for one reason; those that failed first."""
    groups: dict[tuple, list[str]] = {}
    for step in suite.steps:
        state = suite.state_of(step)
        if state["state"] != "done":
            key = state["state"] != "failed", step.part, state["state"], state["why"][:120]
            groups.setdefault(key, []).append(step.name)
    lines = [f"{state}: {part} {', '.join(names)}: {why}"
             for (_, part, state, why), names in sorted(groups.items())]  # fmt: skip
    more = len(lines) - _NAMED
    return lines[:_NAMED] + ([f"and {more} more, in {STATE}"] if more > 0 else [])


def _file(out: Path, name: str) -> dict:
    return read_json(out / "benchmarks" / f"{name}.json") or {}


def _device(out: Path) -> list[str]:
    found = _file(out, "device").get("device")
    if not found:
        return []
    rates = [
        f"{p['dtype']}{' highest' if p['precision'] == 'highest' else ''} "
        f"{number(p['flops_per_s'] / 1e12)} TFLOP/s (in {p['computed_in']})"
        for p in found["products"]
    ]
    copies = found["copies"]
    speeds = [
        f"{name} {number(copies[f'{key}_bytes_per_s'] / 1e9)} GB/s"
        for name, key in (("within", "device"), ("to", "to_device"), ("from", "from_device"))
    ]
    return [
        f"{found['devices']} x {found['kind']}; JAX {found['versions'].get('jax')}",
        f"products of {found['products'][0]['size']}: {', '.join(rates)}",
        f"copies: {', '.join(speeds)}",
    ]


def _metrics(out: Path) -> list[str]:
    """One line per method: image AUROC, pixel AUROC and PRO per category, and times of the fits."""
    methods: dict[str, list[str]] = {}
    for path in sorted((out / "results").glob("*.json")):
        result = read_json(path) or {}
        if "metrics" not in result:
            continue
        figures = [format_value(result["metrics"].get(key))
                   for key in ("image_auroc", "pixel_auroc", "pixel_pro")]  # fmt: skip
        fit = result["timings"].get("fit", {}).get("wall_s")
        methods.setdefault(f"{result['method']} ({settings_text(result)})", []).append(
            f"{result['category']} {' '.join(figures)} ({number(fit)} s)"
        )
    lines = [f"{name}: {'; '.join(found)}" for name, found in methods.items()]
    return ["image AUROC, pixel AUROC, PRO (fit):", *lines] if lines else []


def _agreement(out: Path) -> list[str]:
    return [
        f"{entry['method']} on {entry['category']} against the CPU, products {entry['products']}: "
        f"scores {entry['score_difference']:.1e}, maps {entry['map_difference']:.1e} of the range"
        f" ({'within' if entry['within'] else 'BEYOND'} {entry['tolerance']:g})"
        for entry in _file(out, "agreement").get("agreement", ())
    ]


def _rates(out: Path, name: str) -> list[str]:
    records = [r for r in _file(out, name).get("records", ()) if "error" not in r]
    before = {r["method"]: r for r in _file(out, "rates").get("records", ()) if "error" not in r}
    lines = []
    for record in records:
        scored = [f"{number(s['images_per_s'])} at {s['batch_size']}" for s in record["scoring"]]
        step = record.get("training")
        trained = f"; step {number(1e3 * step['step_s']['median'])} ms" if step else ""
        programs = [*record["scoring"], *([step] if step else [])]
        compiled = sum(program["compile_s"] for program in programs)
        bank = f"; bank of {record['bank_rows']}" if record.get("bank_rows") else ""
        gain = ""
        if name != "rates" and record["method"] in before:
            was = {s["batch_size"]: s["images_per_s"] for s in before[record["method"]]["scoring"]}
            last = record["scoring"][-1]
            if last["batch_size"] in was:
                ratio = last["images_per_s"] / was[last["batch_size"]]
                gain = f"; {number(ratio)} times float32's rate"
        lines.append(f"{label_of(record)}: {', '.join(scored)}{trained}; compiled in "
                     f"{number(compiled)} s{bank}{gain}")  # fmt: skip
    return [f"images/s ({name}):", *lines] if lines else []


def _compared(out: Path) -> list[str]:
    found = []
    for record in _file(out, "torch").get("records", ()):
        for work, part in record.get("compare", {}).get("torch_steps", {}).get("parts", {}).items():
            found.append(f"{record['method']} {work} {number(part['ratio'])}")
    return [f"PyTorch's seconds over ours: {', '.join(found)}"] if found else []


def _loops(out: Path) -> list[str]:
    """One line per method: an epoch with either loop, and as many compiled PyTorch steps."""
    compiled = {
        record["method"]: part["theirs_s"]["median"]
        for record in _file(out, "torch").get("records", ())
        for work, part in record.get("compare", {}).get("torch_steps", {}).get("parts", {}).items()
        if work == "training step, torch.compile"
    }
    lines = []
    for entry in _file(out, "loops").get("loops", ()):
        host, device = (entry[loop]["epoch_s"]["median"] for loop in ("host", "device"))
        theirs = compiled.get(entry["method"])
        beside = f"; steps of torch.compile {number(entry['steps'] * theirs)} s" if theirs else ""
        lines.append(f"{entry['method']}, {entry['steps']} steps: loop on the host {number(host)} "
                     f"s, on the device {number(device)} s{beside}")  # fmt: skip
    return ["seconds of an epoch:", *lines] if lines else []
