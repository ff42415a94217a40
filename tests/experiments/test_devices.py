"""How JAX is set up: compiled programs are found again, wherever their directory lies."""

import os
import shutil
import subprocess
import sys

PROGRAM = """
import sys
import jax
from absl import flags
from imvad_jax.programs import devices

found = {"hits": 0, "misses": 0}

def listen(event, **details):
    for name in found:
        found[name] += event == f"/jax/compilation_cache/cache_{name}"

jax.monitoring.register_event_listener(listen)
flags.FLAGS(sys.argv)
parallel = devices.start_jax()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # it compiles quickly
x = parallel.split(jax.numpy.ones((4, 8)))
parallel.compile(lambda x: (x @ x.T).sum(), split=(True,))(x)
print(found["hits"], found["misses"])
"""


def programs_found_and_compiled(cache):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"--cache_dir={cache}", "--num_devices=2"],
        env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(map(int, done.stdout.split()))


def test_compiled_programs_are_found_in_a_copy_of_their_directory(tmp_path):
    found, compiled = programs_found_and_compiled(tmp_path / "a")
    assert found == 0 and compiled > 0
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    assert programs_found_and_compiled(tmp_path / "b" / "c") == (compiled, 0)
