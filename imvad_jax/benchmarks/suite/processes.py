"""Runs one process of the suite with a log; stops it, with its children, at its time."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from imvad_jax import leaving
from imvad_jax.marks import MARK
from imvad_jax.owned import refuse_foreign
from imvad_jax.training.limit import LIMIT_STATUS, SIGNAL_STATUS, Limit

TOLD = 2.0  # seconds between the signal to end and the end
_POLL = 0.1
_NAMED = ("error:", "failed:")  # how lines that say what went wrong begin


def run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float, limit: Limit
) -> int:
    """Runs a command for so many seconds at most; returns its exit status.

    One that takes longer, or still runs when this process is told to end, is told to end as well
    and killed two seconds later, with its children.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    refuse_foreign(log)
    with open(log, "w", encoding="utf-8") as file:
        print(f"# {MARK}", file=file, flush=True)
        with leaving.child(
            command, partial(_signal, number=signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, env={**os.environ, **environment}, start_new_session=True,
        ) as child:  # fmt: skip
            try:
                return _wait(child, seconds, limit)
            finally:
                _signal(child, signal.SIGKILL)  # whatever it has left behind, too


def _wait(child: subprocess.Popen, seconds: float, limit: Limit) -> int:
    end, told = time.monotonic() + seconds, None
    while child.poll() is None:
        now = time.monotonic()
        if told is None and (now >= end or limit.ended_by_signal):
            told = now
            _signal(child, signal.SIGTERM)
        if told is not None and now - told > TOLD:
            return LIMIT_STATUS
        time.sleep(_POLL)
    return LIMIT_STATUS if told is not None and child.returncode else child.returncode


def _signal(child: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def outcome(status: int, log: Path) -> tuple[str, str]:
    """`done`, `left` or `failed`, and why, from the exit status and the log of a process."""
    if status == 0:
        return "done", ""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()[1:]]
    lines = [line for line in lines if line]
    if status in (LIMIT_STATUS, SIGNAL_STATUS):
        known = [line for line in lines if line.endswith("goes on") or "begins it anew" in line]
        return "left", known[-1][:200] if known else "there was no time to finish it"
    named = [line for line in lines if line.startswith(_NAMED)] or lines[-1:]
    return "failed", ("; ".join(named) or f"exit status {status}")[:400]
