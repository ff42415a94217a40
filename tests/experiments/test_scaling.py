"""Cost against size: single points in this process, and all of it as a user runs it."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from imvad_jax import presets
from imvad_jax.benchmarks import scaling
from imvad_jax.benchmarks.scaling_point import DrawnImages, Request, point
from imvad_jax.errors import UserError
from imvad_jax.training.parallel import Parallel

ASKED = Request(
    axis="images", value=20, method="raw_color", preset="smoke", overrides={}, weights="random",
    seed=0, repeats=2, least_seconds=0.0, fit_repeats=1,
)  # fmt: skip


def on(count, **changes):
    return point(dataclasses.replace(ASKED, **changes), Parallel(jax.devices()[:count]))


def test_drawn_images_are_the_same_in_any_order_and_batch():
    images = DrawnImages(range(5), 8, 7)
    whole = next(iter(images.batches(5))).images
    assert whole.shape == (5, 8, 8, 3) and len(np.unique(whole.reshape(5, -1), axis=0)) == 5
    turned = [batch for batch in images.take([4, 2, 0]).batches(2, [2, 1, 0])]
    np.testing.assert_array_equal(turned[0].images, whole[[0, 2]])
    np.testing.assert_array_equal(turned[1].images[0], whole[4])
    assert not turned[1].images[1].any() and turned[1].valid.tolist() == [True, False]


def test_a_fit_on_so_many_images():
    found = on(2)
    assert found["value"] == found["fit"]["images"] == 20 and found["devices"] == 2
    assert found["seconds"] == found["fit"]["seconds"]["median"]
    assert found["images_per_s"] == pytest.approx(20 / found["seconds"])
    assert found["memory"]["bytes"] > 2**20 and "JAX devices" not in found["hardware"]


def test_scoring_on_so_many_devices():
    found = on(2, axis="devices", value=2, overrides={"batch_size": "5"})
    assert found["batch_size"] == 6 and found["scoring"]["devices"] == 2  # rounded up
    assert found["seconds"] == found["scoring"]["step_s"]["median"] > 0


def test_scoring_against_a_bank_of_so_many_patches():
    fields = {"embedding_dim": "64", "layers": "layer1", "image_size": "32"}
    small, large = (
        on(1, axis="bank", value=value, method="patchcore", overrides=fields)
        for value in (1000, 2048)
    )
    assert small["batch_size"] == large["batch_size"] == 4
    patches = 4 * 8 * 8  # of a batch
    # Rows that fill 1000 up to a round number are no work.
    added = large["scoring"]["flops"] - small["scoring"]["flops"]
    assert added == 2 * patches * (2048 - 1000) * 64


def test_methods_have_the_points_that_fit_them():
    values = {"images": [8], "bank": [1024], "devices": [1, 2]}
    found = {}
    for method in ("padim", "patchcore", "stpm"):
        asked = dataclasses.replace(ASKED, method=method)
        scale = scaling.Scale(template=asked, config=presets.resolve(method, "smoke", {}))
        found[method] = [(r.axis, r.value) for r in scale.requests(values)]
    devices = [("devices", 1), ("devices", 2)]
    assert found == {
        "padim": [("images", 8), *devices],
        "patchcore": [("images", 8), ("bank", 1024), *devices],
        "stpm": devices,
    }


@pytest.mark.parametrize("text", ["0", "64,many", "-8", "1.5", ""])
def test_sizes_are_whole_numbers(text):
    assert scaling.sizes({"bank": ["16", "4", "16"], "devices": []}) == {
        "bank": [4, 16], "devices": [],
    }  # fmt: skip
    with pytest.raises(UserError, match=f"scaling_images={text}: expected whole numbers from 1"):
        scaling.sizes({"images": text.split(",")})


@pytest.mark.slow
def test_a_point_that_fails_is_marked_and_the_rest_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--scaling", "--method=raw_color,padim",
         "--preset=smoke", f"--weights={tmp_path / 'absent.npz'}", "--scaling_images=8",
         "--scaling_devices=1,2", "--repeats=2", "--seconds=0", f"--workdir={tmp_path / 'out'}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    colour, padim = json.loads((tmp_path / "out" / "scaling.json").read_text())["scaling"]
    assert [p["devices"] for p in colour["points"]["devices"]] == [1, 2]
    assert "no such file of weights" in padim["points"]["images"][0]["error"]
    assert "padim, 8 images: FAILED" in done.stderr and "Fit against images" in done.stdout
    assert Image.open(tmp_path / "out" / "scaling.png").size[0] > 1000
