"""Presets of the raw-colour baseline. It has one setting, so all but `smoke` are equal.

    imvad run --method=raw_color --dataset=mvtec_ad --data_dir=DIR \\
        --category=all --workdir=RUN

`presets.reached("raw_color", "cpu")` gives the figures reached, with their commands (RESULTS.md).
"""

from imvad_jax.methods.raw_color import RawColorConfig


def presets() -> dict[str, RawColorConfig]:
    """The named configurations."""
    return dict.fromkeys(("official", "benchmark", "cpu", "demo"), RawColorConfig()) | {
        "smoke": RawColorConfig(image_size=64, grid_size=32)
    }
