"""A hub of one's own: what it states of a file is compared with the file."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest
import safetensors.numpy

from imvad_jax import backbones

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTPUTS = ("layer1",)
PROGRAM = """
import sys
from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
try:
    print("loaded", load_weights(backbones.get("resnet18"), "hub:a/b@main", ("layer1",)).sha256)
except UserError as error:
    print(error.text)
"""


def serve(content: bytes, tag: str, asked: list):
    """A server that has one file and states `tag` of it, on any free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body):
            asked.append((self.command, self.path))
            found = self.path == "/a/b/resolve/main/model.safetensors" or (
                self.path == f"/a/b/resolve/{COMMIT}/model.safetensors"
            )
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content) if found else 0))
            if found:
                self.send_header("ETag", f'"{tag}"')
                self.send_header("X-Linked-Etag", f'"{tag}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body and found:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def content(recipe, tmp_path_factory):
    """A file of weights as bytes."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    safetensors.numpy.save_file(dict(recipe(backbones.get("resnet18"), OUTPUTS)), path)
    return path.read_bytes()


def fetch(server, home, **more):
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def test_a_damaged_file_of_a_hub_is_told_and_can_be_fetched_again(content, tmp_path):
    digest, asked = hashlib.sha256(content).hexdigest(), []
    damaged = bytearray(content)
    damaged[-7] ^= 1
    server = serve(bytes(damaged), digest, asked)
    text = fetch(server, tmp_path)
    found = hashlib.sha256(damaged).hexdigest()
    assert f"sha256 is {found}, but the server states {digest}; the file is damaged" in text
    count = len(asked)
    assert fetch(server, tmp_path, HF_HUB_OFFLINE="1") == text and len(asked) == count
    server.shutdown()
    os.unlink(text.partition(": sha256 is ")[0])  # as the message says
    server = serve(content, digest, asked)
    assert fetch(server, tmp_path) == f"loaded {digest}"
    server.shutdown()


def test_a_server_that_states_no_sha256_is_believed(content, tmp_path):
    server = serve(content, "ab" * 20, [])  # as of small files: a number of git's
    assert fetch(server, tmp_path) == f"loaded {hashlib.sha256(content).hexdigest()}"
    server.shutdown()
