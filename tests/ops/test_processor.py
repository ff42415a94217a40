"""What the system says of the processor."""

import platform

import pytest

from imvad_jax.ops import processor

NAMED = (
    "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2{}\n\nprocessor\t: 1\nflags\t: fpu\n"
)


@pytest.mark.parametrize(
    "text, wide, title",
    [
        (NAMED.format(" avx512f avx512dq"), True, "A CPU with AVX-512"),
        (NAMED.format(""), False, "A CPU with AVX2"),
        ("processor\t: 0\nFeatures\t: asimd\n", False, None),
        (None, False, None),  # not Linux
    ],
)
def test_its_name_and_vectors(text, wide, title, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    if text:
        file.write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", file)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    processor._cpuinfo.cache_clear()
    assert processor.has_wide_vectors() is wide
    assert processor.title() == (title or "arm")
    processor._cpuinfo.cache_clear()
