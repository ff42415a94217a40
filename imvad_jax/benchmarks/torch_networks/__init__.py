"""The training of each method in plain PyTorch, one file per method. Needs PyTorch."""

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.torch_networks.cfa import CFA
from imvad_jax.benchmarks.torch_networks.csflow import CSFlow
from imvad_jax.benchmarks.torch_networks.cutpaste import CutPaste
from imvad_jax.benchmarks.torch_networks.draem import DRAEM
from imvad_jax.benchmarks.torch_networks.fastflow import FastFlow
from imvad_jax.benchmarks.torch_networks.favae import FAVAE
from imvad_jax.benchmarks.torch_networks.rd4ad import RD4AD
from imvad_jax.benchmarks.torch_networks.stpm import STPM

# By the name of our detector's class.
NETWORKS: dict[str, type[Network]] = {
    kind.__name__: kind for kind in (CFA, CSFlow, CutPaste, DRAEM, FastFlow, FAVAE, RD4AD, STPM)
}
