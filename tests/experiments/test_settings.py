"""When two runs are the same."""

import dataclasses

import pytest

from imvad_jax.methods.patchcore import PatchCoreConfig
from imvad_jax.methods.stpm import STPMConfig
from imvad_jax.reporting.result_files import identity_key
from imvad_jax.runs import identity


@pytest.mark.parametrize(
    ("method", "config", "without_effect", "with_effect"),
    [
        ("patchcore", PatchCoreConfig(), {"shard_bank": True}, {"patches_per_image": 9}),
        ("stpm", STPMConfig(), {"cache_features": True}, {"epochs": 9}),
    ],
)
def test_where_something_is_computed_makes_no_other_run(
    method, config, without_effect, with_effect
):
    def record(changes):
        changed = dataclasses.replace(config, **changes)
        return {"method": method, "config": dataclasses.asdict(changed)}

    old, same, other = record({}), record(without_effect), record(with_effect)
    for keys in (identity.IDENTITY, identity.DETECTOR):
        assert not identity.difference(old, same, keys)
        ((name, value),) = with_effect.items()
        assert identity.difference(old, other, keys).endswith(f", {value} now")
        assert name in identity.difference(old, other, keys)
    keys = ("method", "config")
    assert identity_key(old, keys) == identity_key(same, keys) != identity_key(other, keys)
