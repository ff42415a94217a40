"""Looks for what separates good from defective images without any network: light, size, copies.

    imvad audit --dataset=mvtec_ad --data_dir=DIR --category=screw --output=PAGE
    imvad audit --dataset=folder --data_dir=GOOD --input=NEW --output=PAGE

The second one compares new images without labels with good ones. Three lines say what was found;
PAGE then holds index.html, with images from both ends of the strongest number, and audit.json.
Exit status: 0, whatever was found; 2, nothing could be done.
"""

from pathlib import Path

from absl import flags

from imvad_jax import audit, names
from imvad_jax.errors import UserError
from imvad_jax.owned import AUDIT, check_directory
from imvad_jax.programs import devices, output, program, shared_flags, stopping
from imvad_jax.programs.shared_flags import DATA_DIR, DATASET
from imvad_jax.progress import track
from imvad_jax.reporting.audit_page import write_audit

_CATEGORY = flags.DEFINE_list(
    "category", "all", "Categories, separated by commas, or all; of several, each gets a folder in "
    "--output.",
)  # fmt: skip
_INPUT = program.define_paths(
    "input", [], "New images without labels, compared with the good ones of --data_dir: a file, "
    "a folder with all below it, or a quoted pattern. May be given several times.",
)  # fmt: skip
_OUTPUT = program.define_path(
    "output", None, "Directory to write the page and audit.json to; an earlier audit in it is "
    "replaced. Left out: nothing is written.",
)  # fmt: skip
_SIZE = flags.DEFINE_integer(
    "size", audit.SIZE, "Height and width in pixels that images are resized to.", lower_bound=8
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Draws the split of a dataset that has none.", lower_bound=0
)
for name in ("dataset", "data_dir", "cache_dir", "full_scale", "max_megapixels", "recursive",
             "on_bad_image"):  # fmt: skip
    flags.declare_key_flag(name)
flags.adopt_module_key_flags(output)
FIRST = ("dataset", "data_dir", "category", "input", "output", "json")


def main() -> int:
    """The program."""
    stopping.goes_on()
    reading = shared_flags.find_reading()
    wanted = shared_flags.find_categories(_CATEGORY.value)
    if _INPUT.value and len(wanted) > 1:
        raise UserError(f"--category is missing; with --input one of {', '.join(wanted)}")
    outputs = {}
    for category in wanted:
        if _OUTPUT.value:
            several = len(wanted) > 1
            folder = Path(_OUTPUT.value) / names.safe(category) if several else Path(_OUTPUT.value)
            check_directory(folder, AUDIT, "--output")
            outputs[category] = folder
    found, lines = [], []
    for category in wanted:
        one = audit.audit(
            DATA_DIR.value, category, dataset=DATASET.value, new=_INPUT.value or None,
            image_size=_SIZE.value, cache_dir=devices.decoded_dir(), reading=reading,
            seed=_SEED.value, progress=track,
        )  # fmt: skip
        found.append(one.as_dict())
        counts = found[-1]["images"].items()
        lines.append(f"{one.title}: {', '.join(f'{count} {name}' for name, count in counts)}")
        lines += [f"audit: {text}" for text in (*one.lines, *one.facts.notes)]
        if category in outputs:
            page = write_audit(outputs[category], one)
            lines.append(f"written to {outputs[category]}; open {page.name} there")
    output.result("\n".join(lines), found[0] if len(found) == 1 else found)
    return 0
