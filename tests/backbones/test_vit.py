"""ViT-B/16 against golden features, and its parts on a toy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from imvad_jax.backbones import get, layout, vit
from imvad_jax.errors import UserError


@pytest.mark.real
def test_features_equal_the_golden_ones(golden, recipe):
    statistics = ((0.5,) * 3, (0.5,) * 3)
    images, expected = golden("vit_base_patch16_224", 1, (1, 3, 224, 224), statistics)
    spec, outputs = get("vit_base_patch16_224"), ("cls", "tokens_mean", "tokens")
    variables = spec.from_timm(recipe(spec, outputs), outputs)
    found = jax.jit(lambda v, x: spec.build().apply(v, x, outputs=outputs))(variables, images)
    assert set(expected) == {"cls", "tokens_mean"}
    for output in expected:
        difference = np.abs(np.asarray(found[output]) - expected[output]).max()
        assert difference < 1e-4 * np.abs(expected[output]).max(), output
    total = 197 * expected["tokens_mean"] - expected["cls"]
    np.testing.assert_allclose(found["tokens"].sum((1, 2)), total, rtol=1e-3, atol=1e-2)


def normalised(x, norm):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]


def linear(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def test_a_small_one_equals_its_formulas():
    net = vit.ViT(width=6, depth=1, heads=2, patch=4, size=8)
    images = np.random.default_rng(0).random((2, 8, 8, 3))
    template = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, outputs=("cls",)), images)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f"), template)
    found = jax.jit(lambda v, x: net.apply(v, x, outputs=vit.OUTPUTS, train=True))(
        variables, images.astype("f")
    )

    p = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)["params"]
    patches = (2 * images - 1).reshape(2, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    proj = p["patch_embed"]["proj"]
    x = patches.reshape(2, 4, 48) @ proj["kernel"].reshape(48, 6) + proj["bias"]
    x = np.concatenate([np.repeat(p["cls_token"], 2, 0), x], 1) + p["pos_embed"]
    block = p["blocks_0"]
    qkv = linear(normalised(x, block["norm1"]), block["attn"]["qkv"])
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        query, key, value = (qkv[..., 6 * part : 6 * part + 6][..., head] for part in range(3))
        weights = special.softmax(query @ key.transpose(0, 2, 1) / np.sqrt(3), -1)
        heads.append(weights @ value)
    x = x + linear(np.concatenate(heads, -1), block["attn"]["proj"])
    inner = linear(normalised(x, block["norm2"]), block["mlp"]["fc1"])
    gelu = inner * 0.5 * (1 + special.erf(inner / np.sqrt(2)))
    x = normalised(x + linear(gelu, block["mlp"]["fc2"]), p["norm"])
    np.testing.assert_allclose(found["cls"], x[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["tokens"].reshape(2, 4, 6), x[:, 1:], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["tokens_mean"], x.mean(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(256, 256), (224, 240)])
def test_other_sizes_are_refused(size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    module = get("vit_base_patch16_224").build()
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} .*expected 224 x 224.*image_size"):
        jax.eval_shape(lambda x: module.apply({}, x, outputs=("cls",)), images)


def test_names_are_timms_and_random_tokens_are_drawn():
    spec = get("vit_base_patch16_224")
    template = spec.variables_template(("cls",))["params"]
    block = {
        layout.timm_name(("blocks_11", *(str(key.key) for key in path)))
        for path, _ in jax.tree_util.tree_flatten_with_path(template["blocks_11"])[0]
    }
    assert block == {
        f"blocks.11.{part}.{leaf}"
        for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        for leaf in ("weight", "bias")
    }
    assert layout.timm_name(("patch_embed", "proj", "kernel")) == "patch_embed.proj.weight"
    small = {"params": {name: template[name] for name in ("pos_embed", "cls_token")}}
    drawn = layout.random_variables(small, seed=0)["params"]
    assert {layout.timm_name((name,)) for name in small["params"]} == {"pos_embed", "cls_token"}
    assert drawn["pos_embed"].shape == (1, 197, 768) and drawn["cls_token"].shape == (1, 1, 768)
    assert drawn["pos_embed"].std() == pytest.approx(0.02, rel=0.02)
