"""Makes the heat maps of docs/methods: python docs/pictures.py [METHOD ...]

By the commands that stand on the pages, on the parts that `make demo` has drawn; a run that is
finished is not made again. A quarter of an hour to some hours for all methods on two cores.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from imvad_jax.programs.method_pictures import PICTURES

OUT = Path(__file__).parent / "images" / "methods"
QUALITY = 85


def make(method: str) -> None:
    """Runs the command of a method's page and stores its picture as a JPEG."""
    picture, run = PICTURES[method], Path("demo/methods", method)
    if not (run / "metrics.json").is_file():
        flags = picture.run_flags(method)
        subprocess.run([sys.executable, "-m", "experiments.run", *flags], check=True)
    with Image.open(run / "heatmaps" / picture.heatmap) as image:
        image.convert("RGB").save(OUT / f"{method}.jpg", quality=QUALITY, optimize=True)
    print(f"written: {OUT / f'{method}.jpg'}")


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        make(name)
