"""A record is looked at before anything is built from it; each refusal names file and field."""

import dataclasses
import json

import pytest

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.methods.padim import PaDiMConfig
from imvad_jax.training.record import FORMAT, config_of, read_record

RECORD = {"method": "padim", "config": {"image_size": 64, "layers": ["layer1"]}, "seed": 0}


def read(tmp_path, **changes):
    record = {key: value for key, value in (RECORD | changes).items() if value != "absent"}
    (tmp_path / "config.json").write_text(json.dumps(record))
    found = read_record(tmp_path)
    return found, config_of(found, tmp_path)


def test_a_record_of_before_is_read(tmp_path):
    record, config = read(tmp_path, weights=None, notes=["n"], tile=0, full_scale=None, more=1)
    assert record["notes"] == ["n"] and config.image_size == 64 and config.layers == ("layer1",)


@pytest.mark.parametrize("changes, text", [
    ({"method": 3}, "method is number 3, expected a text"),
    ({"method": "absent"}, "no field 'method'"),
    ({"config": None}, "no field 'config'"),
    ({"config": [1]}, "config is list"),
    ({"seed": "0"}, "seed is text '0', expected an integer"),
    ({"seed": True}, "seed is boolean True, expected an integer"),
    ({"tile": -256}, "tile is number -256, expected an integer from 0"),
    ({"tile": 64, "overlap": 64}, "overlap is 64, expected less than the tile of 64"),
    ({"notes": "one"}, "notes is text 'one', expected a list of texts"),
    ({"train_files": [1]}, "train_files is list"),
    ({"holdout": 1.5}, "holdout is number 1.5, expected a number from 0 to below 1"),
    ({"full_scale": float("nan")}, "full_scale is number nan, expected a number above 0"),
    ({"weights": {"source": "x", "sha256": "xy"}}, "weights is object"),
    ({"training_loop": "hast"}, "training_loop is text 'hast', expected host or device"),
    ({"format": 0}, "format 0, expected a number from 1"),
    ({"config": {"image_size": -64}}, "config.image_size is -64, expected an integer from 1"),
    ({"config": {"image_size": "64"}}, "config.image_size is text '64', expected an integer"),
    ({"config": {"sigma": float("nan")}}, "config.sigma is number nan, expected a number"),
    ({"config": {"layers": "layer1"}}, "config.layers is text 'layer1', expected a list, each a"),
    ({"config": {"layers": [1]}}, "config.layers is list"),
    ({"config": {"imaga_size": 64}}, "config.imaga_size: PaDiMConfig has no such field"),
    ({"config": {"convolution": "fast"}}, "unknown value 'fast'"),
])  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, changes, text):
    with pytest.raises(UserError) as caught:
        read(tmp_path, **changes)
    message = caught.value.text
    assert text in message and str(tmp_path / "config.json") in message and "\n" not in message


@pytest.mark.parametrize("newer", [FORMAT + 1, "2", 1.5])
def test_a_newer_record_is_refused(tmp_path, newer):
    with pytest.raises(UserError, match=f"written by a newer imvad_jax .format {newer!r}"):
        read(tmp_path, format=newer)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 50_000, '{"method": "padim"}', "\xff"])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="config.json: not a run's record"):
        read_record(tmp_path)


def test_the_defaults_of_all_methods_fit(tmp_path):
    for name in methods.METHODS:
        config = methods.get(name).config()
        stored = json.loads(json.dumps(dataclasses.asdict(config)))
        assert config_of({"method": name, "config": stored}) == config
    assert isinstance(config_of(RECORD), PaDiMConfig)
