"""Good files with bytes changed, cut or exchanged: loaded, or one line that names the file."""

import io
import pickletools
import time
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from imvad_jax.backbones.tensor_files import open_tensors
from imvad_jax.errors import UserError
from tests.backbones.checkpoints import pickled, storage, tensor, view, write_legacy, write_zip

MUTATIONS = 60
OPCODES = np.frombuffer(b"".join(op.code.encode("latin1") for op in pickletools.opcodes), np.uint8)
ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.weight": np.ones(3, np.float16),
    "bn1.num_batches_tracked": np.array(7, np.int64),
    "empty": np.zeros((0, 2), np.float64),
}


def state():
    """A checkpoint as trainings write them."""
    tensors = OrderedDict((name, tensor(name, array)) for name, array in ARRAYS.items())
    brain = np.ones(4).astype(jnp.bfloat16)
    tensors["brain"] = view(storage("brain", brain, kind="BFloat16"), 1, (3,), (1,))
    return {"state_dict": tensors, "epoch": 3, "rates": [0.1, None, True, "step"]}


def mutated(rng, content, kind):
    """`content` cut, with bits flipped, bytes exchanged, or opcodes written over bytes."""
    data = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, len(data), rng.integers(1, 5))
    if kind == "cut":
        return data[: places[0]].tobytes()
    if kind == "flip":
        data[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    elif kind == "exchange":
        data[places] = data[np.roll(places, 1) - 1]
    else:
        data[places] = rng.choice(OPCODES, len(places))
    return data.tobytes()


def zipped_pickle(rng, path, kind):
    # The pickle is changed before it is zipped: afterwards the checksum alone would refuse it.
    write_zip(path, state())
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    records["archive/data.pkl"] = mutated(rng, pickled(state())[0], kind)
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)


def archived_arrays(rng, path, kind):
    chosen = rng.choice(list(ARRAYS))
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in ARRAYS.items():
            stream = io.BytesIO()
            np.save(stream, array)
            content = stream.getvalue()
            if name == chosen:  # its header, which numpy makes 128 bytes long
                content = mutated(rng, content[:128], kind) + content[128:]
            archive.writestr(f"{name}.npy", content)


def whole(write):
    def mutate(rng, path, kind):
        write(path)
        path.write_bytes(mutated(rng, path.read_bytes(), kind))

    return mutate


KINDS = {
    "zip.pth": whole(lambda path: write_zip(path, state())),
    "pickle.pth": zipped_pickle,
    "legacy.pth": whole(lambda path: write_legacy(path, state())),
    "whole.npz": whole(lambda path: np.savez_compressed(path, **ARRAYS)),
    "arrays.npz": archived_arrays,
    "whole.safetensors": whole(lambda path: safetensors.numpy.save_file(ARRAYS, path)),
}


def read(path):
    with open_tensors(path) as tensors:
        return [np.array(tensors[name]) for name in tensors]


@pytest.mark.parametrize("name", KINDS)
def test_no_other_error_than_one_that_names_the_file(name, tmp_path):
    rng, path, refused = np.random.default_rng(0), tmp_path / name, 0
    for index in range(MUTATIONS):
        kind = ("flip", "cut", "exchange", "opcode")[index % 4]
        KINDS[name](rng, path, kind)
        start = time.process_time()
        try:
            read(path)
        except UserError as error:
            message = str(error)
            assert str(path) in message and message.isprintable(), (index, kind)
            refused += 1
        assert time.process_time() - start < 1, (index, kind)
    assert refused > MUTATIONS // 4  # else nothing was damaged
