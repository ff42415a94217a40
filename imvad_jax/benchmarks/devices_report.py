"""Report of the suite on a device: plain products, copies, agreement with the CPU."""

from imvad_jax.benchmarks.columns import number
from imvad_jax.reporting.text_table import Form, format_rows

HEADER = """\
- **Device**: plain products of one device, and copies: within its memory (what is read and what is
  written both count), from the host's memory and back. **computed in** is told from the error
  against float64.
- **Against the CPU**: one fitted detector scored on the device and on the CPU; the largest
  differences over the range of the CPU's values. **products**: those of float32 values.
- **An epoch by both loops of a training**: the host calls the compiled step once a batch, or all
  images lie on each device and one call takes many steps; in turn. **first s**: the first epoch,
  which compiles. **ratio**: the device's seconds over the host's. **MB**: the images on a device.
"""
PRODUCTS = ("product", "precision", "computed in", "error", "rows", "TFLOP/s")
COPIES = ("copy", "GB/s")
AGREEMENT = (
    "method", "category", "products", "images", "scores", "maps", "tolerance", "within"
)  # fmt: skip
LOOPS = (
    "method", "category", "images", "steps", "host s", "device s", "ratio", "host first s",
    "device first s", "MB",
)  # fmt: skip


def device_line(device: dict) -> str:
    """The device and the versions in one line."""
    memory = device.get("memory_bytes")
    size = f", {memory / 2**30:.0f} GiB usable" if memory else ""
    versions = ", ".join(f"{name} {text}" for name, text in device["versions"].items())
    return f"{device['devices']} x {device['kind']}{size}; {versions}"


def device_tables(device: dict, markdown: bool = False) -> list[str]:
    """Products and copies."""
    products = [
        [
            part["dtype"], part["precision"], part["computed_in"], f"{part['error']:.0e}",
            str(part["size"]), number(part["flops_per_s"] / 1e12),
        ]
        for part in device["products"]
    ]  # fmt: skip
    copies = device["copies"]
    rows = [
        [name, number(copies[f"{key}_bytes_per_s"] / 1e9)]
        for name, key in (
            ("within the device", "device"), ("to the device", "to_device"),
            ("from the device", "from_device"),
        )
    ]  # fmt: skip
    form = Form.MARKDOWN if markdown else Form.TEXT
    return [format_rows(PRODUCTS, products, form, left=3), format_rows(COPIES, rows, form)]


def agreement_table(entries: list[dict], markdown: bool = False) -> str:
    """How far scores and maps differ from the CPU's."""
    rows = [
        [
            entry["method"], entry["category"], entry["products"], str(entry["images"]),
            f"{entry['score_difference']:.1e}", f"{entry['map_difference']:.1e}",
            f"{entry['tolerance']:g}", "yes" if entry["within"] else "**no**",
        ]
        for entry in entries
    ]  # fmt: skip
    form = Form.MARKDOWN if markdown else Form.TEXT
    return format_rows(AGREEMENT, rows, form, left=3)


def loops_table(entries: list[dict], markdown: bool = False) -> str:
    """Seconds of an epoch by both loops."""
    rows = [
        [
            f"{entry['method']} ({entry['preset']})", entry["category"], str(entry["images"]),
            str(entry["steps"]),
            *(number(entry[loop]["epoch_s"]["median"]) for loop in ("host", "device")),
            number(entry["ratio"]),
            *(number(entry[loop]["first_s"]) for loop in ("host", "device")),
            number(entry["bytes_on_a_device"] / 1e6),
        ]
        for entry in entries
    ]  # fmt: skip
    form = Form.MARKDOWN if markdown else Form.TEXT
    return format_rows(LOOPS, rows, form, left=2)


def format_tables(found: dict, markdown: bool = False) -> list[str]:
    """The tables of a file: those of `device`, `agreement` and `loops`, where it has them."""
    tables = device_tables(found["device"], markdown) if "device" in found else []
    if agreement := found.get("agreement"):
        tables.append(agreement_table(agreement, markdown))
    if loops := found.get("loops"):
        tables.append(loops_table(loops, markdown))
    return tables


def lines(found: dict) -> list[str]:
    """What the figures of a file were made on."""
    device = [device_line(found["device"])] if "device" in found else []
    entries = [*found.get("agreement", ()), *found.get("loops", ())]
    return device + list(dict.fromkeys(entry["hardware"] for entry in entries))
