"""FAVAE's autoencoder in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import jax
import torch
import torch.nn.functional as F

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.torch_networks.layers import Layers, in_unit_range
from imvad_jax.layers.vae import SLOPE
from imvad_jax.methods.favae import augmented, standard_normal


class FAVAE(Network):
    """Squared errors of the restored images and features, and the divergence."""

    @classmethod
    def keeps(cls, config):
        return not config.augment

    @classmethod
    def in_its_favour(cls, config):
        if not config.augment:
            return ""
        return "images are augmented by ours in every step, by PyTorch in none"

    @staticmethod
    def draw(module, images):
        keys = jax.vmap(jax.random.split)(module.image_keys(images.shape[0]))
        shape = jax.ShapeDtypeStruct((images.shape[0], module.config.latent_size), "float32")
        noise = {"noise": standard_normal(keys[:, 1], shape)}
        if module.config.augment:
            noise["images"] = jax.vmap(augmented)(images, keys[:, 0])
        return noise

    def convert(self, convert, params):
        return convert(params) | {"decoder": convert(params["decoder"], transposed=True)}

    def frozen_features(self, images):
        images = in_unit_range(images)
        seen = self.teacher.normalised(images) if self.config.normalize_teacher else images
        return {"images": images, **self.teacher.maps(seen)}

    def loss_of(self, inputs, drawn):
        config, images = self.config, inputs["images"]
        mean, log_variance = encoded(self.trained["encoder"], images)
        latent = mean + torch.exp(log_variance / 2) * drawn["noise"]
        restored, maps = decoded(self.trained["decoder"], latent)
        loss = squared_error(restored, images)
        for number, (name, x) in enumerate(zip(config.layers, maps, strict=True)):
            adapter, wanted = self.trained[f"adapters_{number}"], inputs[name]
            x = F.relu(adapter["conv1"].conv(x, "conv"))
            x = adapter["conv2"].conv(x, "conv")
            if x.shape[2:] != wanted.shape[2:]:
                x = F.interpolate(x, wanted.shape[2:], mode="bilinear")
            loss = loss + squared_error(x, wanted)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return loss + config.kld_weight * divergence


def squared_error(a, b):
    """Summed over all but the batch, whose mean it is: `[]`."""
    return ((a - b) ** 2).sum((1, 2, 3)).mean()


def encoded(net: Layers, x):
    """`vae.Encoder`: mean and log variance `[B, Z]`."""
    number = 1
    while (name := f"bn{number}") in net:
        halves = net.params[f"conv{number}"]["conv"]["kernel"].shape[-1] == 4
        x = net[f"conv{number}"].conv(x, "conv", stride=2 if halves else 1, padding=1)
        x = F.leaky_relu(net.norm(x, name), SLOPE)
        number += 1
    return net[f"conv{number}"].conv(x, "conv", padding=0).flatten(1).chunk(2, 1)


def decoded(net: Layers, latent):
    """`vae.Decoder`: images and the maps before the batch norms, shallow to deep."""
    x, maps, number = latent[:, :, None, None], [], 1
    while (name := f"bn{number}") in net:
        doubles = number > 1 and net.params[f"conv{number}"]["kernel"].shape[-1] == 4
        x = enlarged(net, x, number, stride=2 if doubles else 1, padding=min(number - 1, 1))
        if doubles:
            maps.insert(0, x)
        x = F.leaky_relu(net.norm(x, name), SLOPE)
        number += 1
    return torch.sigmoid(enlarged(net, x, number, stride=2, padding=1)), maps


def enlarged(net: Layers, x, number: int, stride: int, padding: int):
    """A transposed convolution with a bias."""
    p = net.params[f"conv{number}"]
    return F.conv_transpose2d(x, p["kernel"], p["bias"], stride, padding)
