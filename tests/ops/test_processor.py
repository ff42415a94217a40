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
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    processor._cpuinfo.cache_clear()
    assert processor.has_wide_vectors() is wide
    assert processor.title() == (title or "arm")
    processor._cpuinfo.cache_clear()


@pytest.mark.parametrize(
    "flags, wide, limit",
    [
        ("--xla_cpu_max_isa=AVX2", False, "AVX2"),
        ("--xla_a=1 --xla_cpu_max_isa=AVX512 --xla_cpu_max_isa=avx", False, "avx"),  # the last one
        ("--xla_cpu_max_isa=SSE4_2", False, "SSE4_2"),
        ("--xla_cpu_max_isa=AVX512", True, "AVX512"),
        ("--xla_a=1", True, None),
    ],
)
def test_what_xla_is_limited_to_counts(flags, wide, limit, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(NAMED.format(" avx512f"))
    monkeypatch.setattr(processor, "CPUINFO", file)
    monkeypatch.setenv("XLA_FLAGS", flags)
    processor._cpuinfo.cache_clear()
    assert processor.has_wide_vectors() is wide
    suffix = f", XLA limited to {limit}" if limit else ""
    assert processor.title() == "A CPU with AVX-512" + suffix
    processor._cpuinfo.cache_clear()
