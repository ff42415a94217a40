"""Draws synthetic parts, fits PaDiM on the good ones and shows which defects it finds.

    imvad demo --out=demo

Writes three categories in the layout of MVTec AD to OUT/parts, and the result to OUT/run; open its
index.html. It takes a few minutes on two cores. The backbone's ImageNet weights come with a pip
package, so nothing is downloaded.
"""

from pathlib import Path

from absl import flags

from imvad_jax.backbones.weights import DEMO_PACKAGE
from imvad_jax.commands import command
from imvad_jax.data.demo import CATEGORIES, write_demo_dataset
from imvad_jax.errors import say
from imvad_jax.programs import devices, output, program, time_limit
from imvad_jax.runs import cells

_OUT = program.define_path("out", "demo", "Folder to write to: new, empty or of an earlier demo.")
FIRST = ("out", "json")
for module in (devices, time_limit, output):
    flags.adopt_module_key_flags(module)
_WEIGHTS = f"package:{DEMO_PACKAGE}"


def find_request(out: Path) -> cells.RunRequest:
    """The request of `imvad run` for PaDiM on all drawn categories."""
    parts, run = out / "parts", out / "run"
    given = [
        "--method=padim", "--preset=demo", "--dataset=mvtec_ad", f"--weights={_WEIGHTS}",
        f"--data_dir={parts}", f"--workdir={run}", "--category=all",
    ]  # fmt: skip
    return cells.RunRequest(
        method="padim", preset="demo", dataset="mvtec_ad", weights=_WEIGHTS, data_dir=str(parts),
        workdir=run, categories=sorted(CATEGORIES), decoded_dir=devices.decoded_dir(),
        command=command("run", given),
    )  # fmt: skip


def main() -> int:
    """The program."""
    limit, out = time_limit.start_limit(), Path(_OUT.value)
    request = find_request(out)
    asked = request.cells
    cells.check_before(request.workdir, asked)  # before anything is drawn
    write_demo_dataset(out / "parts")
    how = cells.Making(parallel=devices.start_jax(), limit=limit, log=say)
    rows, stopped = cells.run_cells(request.workdir, asked, how)
    text, document = cells.result(request.workdir, asked, rows)
    output.result(text, document | {"parts": request.data_dir})
    if stopped:
        raise stopped
    return 0
