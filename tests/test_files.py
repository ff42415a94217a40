"""Files and folders are there whole or not at all."""

import pytest

from imvad_jax.files import create_atomically


def test_a_folder_replaces_a_folder_and_a_failure_leaves_the_old_one(tmp_path):
    def make(text, fail=False):
        def create(path):
            path.mkdir()
            (path / text).write_text(text)
            if fail:
                raise ValueError(text)

        return create

    target = tmp_path / "new" / "target"
    create_atomically(target, make("first"))
    create_atomically(target, make("second"))
    with pytest.raises(ValueError, match="third"):
        create_atomically(target, make("third", fail=True))
    assert [file.name for file in target.iterdir()] == ["second"]
    assert list(target.parent.iterdir()) == [target]


def test_a_file_replaces_a_file_and_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "target"
    for text in ("first", "second"):
        create_atomically(target, lambda path, text=text: path.write_text(text))
        assert target.read_text() == text
    with pytest.raises(ZeroDivisionError):
        create_atomically(tmp_path / "other", lambda path: path.write_text("x") / 0)
    assert list(tmp_path.iterdir()) == [target]
