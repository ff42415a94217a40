"""`import imvad_jax`: its names, how little it imports, and that editors and checkers see them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import imvad_jax
from imvad_jax import api, errors, methods, model, presets
from imvad_jax.presets import catalogue

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("absl", "flax", "jax", "matplotlib", "numpy", "scipy", "tensorflow", "tqdm")
SECONDS = 0.050


def in_a_new_process(code: str) -> dict:
    """What a fresh interpreter prints as JSON."""
    command = [sys.executable, "-c", f"import json, sys, time\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


IMPORT = f"""
start = time.perf_counter()
import imvad_jax
seconds = time.perf_counter() - start
names = dir(imvad_jax)
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps(dict(seconds=seconds, names=names, heavy=heavy)))
"""


def test_the_import_is_quick_and_takes_nothing_heavy_along(record_property):
    found = [in_a_new_process(IMPORT) for _ in range(3)]  # the quickest: others may be at work
    seconds = min(row["seconds"] for row in found)
    record_property("figures", f"import imvad_jax: {1000 * seconds:.2f} ms")
    assert seconds < SECONDS
    assert found[0]["heavy"] == []
    assert set(imvad_jax.__all__) <= set(found[0]["names"])


PROGRAMS = """
from imvad_jax.programs import apart, registry
for name in registry.PROGRAMS:
    apart.flag_names(name)
late = [name for name in ("matplotlib", "orbax", "sklearn", "tensorflow", "torch")
        if name in sys.modules]
print(json.dumps(dict(programs=len(registry.PROGRAMS), late=late)))
"""


def test_no_program_imports_at_its_start_what_it_may_not_need():
    found = in_a_new_process(PROGRAMS)
    assert found["programs"] > 10 and found["late"] == []


def test_all_names_are_there_and_are_those_of_their_modules():
    for name in imvad_jax.__all__:
        assert getattr(imvad_jax, name) is not None and name in dir(imvad_jax)
    for name in ("make", "load", "load_data", "fit", "score", "save"):
        assert getattr(imvad_jax, name) is getattr(api, name)
    assert set(api.__all__) <= set(imvad_jax.__all__)
    assert imvad_jax.Model is model.Model and imvad_jax.UserError is errors.UserError
    with pytest.raises(AttributeError, match="module 'imvad_jax' has no attribute 'mke'"):
        imvad_jax.mke  # noqa: B018


def test_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "imvad_jax/__init__.py").read_text())
    (block,) = [
        node for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]  # fmt: skip
    seen = {node.name: node for node in block.body if isinstance(node, ast.ClassDef)}
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname or alias.name for node in imported for alias in node.names}
    assert set(imvad_jax.__all__) <= names | seen.keys()
    inside = {
        name
        for node in seen["methods"].body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else [ast.unparse(target) for target in getattr(node, "targets", ())]
        )
    }
    assert set(methods.__all__) <= inside
    assert (ROOT / "imvad_jax/py.typed").read_text() == ""


def test_methods_is_a_module_that_lists_the_methods():
    found = imvad_jax.methods()
    assert imvad_jax.methods is methods is sys.modules["imvad_jax.methods"]
    assert list(found) == list(methods.METHODS)
    assert found["padim"].title == methods.get("padim").title == "PaDiM"
    assert dict(found["padim"].presets) == presets.of("padim")
    assert found["padim"].defaults == methods.get("padim").config()
    trained = {name for name, info in found.items() if info.trained}
    assert {"stpm", "cfa", "draem"} <= trained and not trained & {"padim", "patchcore", "spade"}
    table = repr(found).splitlines()
    assert len(table) == 1 + len(methods.METHODS) and max(map(len, table)) <= 100
    assert any(line.startswith("padim ") and "PaDiM" in line and "smoke" in line for line in table)
    assert repr(found["padim"]).startswith("MethodInfo(padim: PaDiM, not trained, presets official")
    with pytest.raises(KeyError, match="no method 'padmi'; did you mean 'padim'"):
        found["padmi"]
    assert "padmi" not in found and type(found) is catalogue.Catalogue


def test_methods_can_be_called_whatever_was_imported_first():
    code = """
from imvad_jax.methods import base
import imvad_jax
from imvad_jax import methods
print(json.dumps(dict(names=list(imvad_jax.methods()), same=methods is imvad_jax.methods,
                      title=methods.get("padim").title)))
"""
    found = in_a_new_process(code)
    assert found == {"names": list(methods.METHODS), "same": True, "title": "PaDiM"}
