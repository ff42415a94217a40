"""Methods of other packages, named package.module:Class: found, or refused in one clear line."""

import sys

import pytest

from imvad_jax import api, methods
from imvad_jax.errors import UserError
from imvad_jax.methods import outside

HEAD = """
import dataclasses
from imvad_jax.methods import Detector, DetectorConfig

@dataclasses.dataclass(frozen=True)
class Settings(DetectorConfig):
    cells: int = 4

class Whole(Detector):
    config: Settings
    def init_accumulator(self, capacity): ...
    def accumulate(self, accumulator, images, index): ...
    def finalize(self, accumulators, count, key, progress): ...
    def __call__(self, images): ...
    def memory_estimate(self, images, devices): ...
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the module `others.parts`; gives the name of a class in it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "others").mkdir()
    (tmp_path / "others/__init__.py").touch()
    monkeypatch.setattr(outside, "_found", {})

    def write(code: str, name: str = "Whole") -> str:
        (tmp_path / "others/parts.py").write_text(HEAD + code)
        return f"others.parts:{name}"

    yield write
    for module in [name for name in sys.modules if name.split(".")[0] == "others"]:
        del sys.modules[module]


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        methods.get(name)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"method={name}: ")


def test_a_complete_class_is_a_method(written):
    name = written("class Other(Whole):\n    title = 'other parts'\n")
    found = methods.get(name)
    assert (found.title, found.config().cells) == ("Whole", 4)
    assert methods.get("others.parts:Other").title == "other parts"
    assert methods.make(name).config == found.config()


@pytest.mark.parametrize(
    "annotation", ["'Settings'", "sub.Settings"], ids=["text", "postponed, of a module"]
)
def test_the_configuration_may_be_named_by_text(written, annotation):
    code = f"import others.parts as sub\nclass Late(Whole):\n    config: '{annotation}'\n"
    if annotation.startswith("'"):
        code = code.replace("''", "'")
    assert methods.get(written(code, "Late")).config().cells == 4


@pytest.mark.parametrize("name", [":", "others.parts:", ":Whole", "others parts:Whole", "a:b:c"])
def test_what_is_no_name_is_refused(written, name):
    written("")
    assert refusal(name).startswith("expected package.module:Class")


def test_a_package_that_is_not_there(written):
    assert refusal("elsewhere.parts:Whole").startswith("there is no module elsewhere; install")
    written("")
    assert refusal("others.part:Whole").startswith("there is no module others.part;")


def test_a_module_that_fails_says_where(written):
    found = refusal(written("1 / 0"))
    assert found.startswith("module others.parts cannot be imported: ZeroDivisionError")
    assert f"parts.py, line {HEAD.count(chr(10)) + 1})" in found


def test_a_module_that_lacks_another(written):
    found = refusal(written("import not_installed_at_all"))
    assert "cannot be imported: ModuleNotFoundError: No module named 'not_installed" in found


def test_a_missing_class_names_those_there_are(written):
    found = refusal(written("", "Hole"))
    assert found == "module others.parts has no 'Hole'; the detectors there: Whole"


@pytest.mark.parametrize("name", ["Settings", "Detector", "dataclasses"])
def test_what_is_no_detector(written, name):
    expected = f"'{name}' is no subclass of imvad_jax.methods.Detector"
    assert refusal(written("", name)) == expected


BAD = {
    "lacks": ("class Bad(Detector):\n    config: Settings\n    def accumulate(self): ...",
              "with the phases statistics does not define __call__, init_accumulator, finalize, "
              "memory_estimate"),
    "trains": ("class Bad(Whole):\n    phases = ('statistics', 'gradient')",
               "with the phases statistics, gradient does not define loss"),
    "phases": ("class Bad(Whole):\n    phases = ('training',)", "Bad.phases is ('training',)"),
    "misspelt": ("class Bad(Whole):\n    def init_memry(self, key): ...",
                 "defines 'init_memry', which nothing calls; is 'init_memory' meant?"),
    "config": ("class Bad(Whole):\n    config: dict", "Bad.config: expected the annotation"),
    "mutable": ("@dataclasses.dataclass\nclass Loose:\n    pass\nclass Bad(Whole):\n"
                "    config: Loose", "Bad.config: expected the annotation"),
    "unset": ("@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Open(Settings):\n"
              "    size: int\nclass Bad(Whole):\n    config: Open", "no default in Open for size"),
    "presets": ("class Bad(Whole):\n    presets = {'cpu': DetectorConfig()}",
                "Bad.presets: expected Settings by name"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_method_says_what_is_missing(written, case):
    code, expected = BAD[case]
    assert expected in refusal(written(code, "Bad"))


def test_a_method_of_the_contract_under_an_old_name(written, monkeypatch):
    monkeypatch.setitem(outside.OLD_NAMES, "teacher_features", "frozen_features")
    name = written("class Old(Whole):\n    def teacher_features(self, images): ...", "Old")
    assert refusal(name) == "Old defines 'teacher_features', which is called 'frozen_features' now"


def test_new_names_are_of_the_contract_and_old_ones_are_not():
    hooks = set(outside.HOOKS)
    assert all(hasattr(methods.Detector, name) for name in hooks)
    assert set(outside.OLD_NAMES.values()) <= hooks
    assert not any(hasattr(methods.Detector, name) for name in outside.OLD_NAMES)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_the_methods_here_keep_what_is_asked_of_others(name):
    method = methods.METHODS[name]
    outside.check(method.detector)
    assert outside.config_type(method.detector) is method.config


def test_the_python_interface_takes_the_name(written):
    model = api.make(written("Whole.outputs = ()"), cells=8)
    assert (model.method, model.config.cells) == ("others.parts:Whole", 8)
    with pytest.raises(UserError, match="parts:Nothing: module others.parts has no 'Nothing'"):
        api.make("others.parts:Nothing")
