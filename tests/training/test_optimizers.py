"""What the optimisers do before and around PyTorch's steps: clipping, the cosine schedule."""

import jax
import numpy as np

from imvad_jax.methods.base import TrainedConfig
from imvad_jax.training.optimizers import make_optimizer, make_schedule


def test_gradients_are_clipped_as_a_whole_before_the_decay_is_added():
    """As torch.nn.utils.clip_grad_norm_ does before the step of an SGD with weight decay."""
    config = TrainedConfig(
        optimizer="sgd", momentum=0.0, learning_rate=1.0, weight_decay=0.1, gradient_clip=1.0
    )
    optimizer = make_optimizer(config, 1)
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=n).astype(np.float32) for name, n in (("a", 24), ("b", 12))}
    unit = {name: rng.normal(size=x.shape) for name, x in params.items()}
    length = np.sqrt(sum(np.sum(x**2) for x in unit.values()))
    unit = {name: np.float32(x / length) for name, x in unit.items()}
    assert max(np.abs(x).max() for x in unit.values()) * 1.5 < 1  # no single value is too large
    for scale, left in ((0.9, 0.9), (1.5, 1.0), (20.0, 1.0)):
        gradients = {name: scale * x for name, x in unit.items()}
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        for name, x in params.items():
            expected = -(left * unit[name] + 0.1 * x)
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5, atol=1e-6)


def test_the_cosine_schedule_falls_to_zero_over_all_steps_in_half_a_turn():
    config = TrainedConfig(learning_rate=0.4, schedule="cosine")
    rate = jax.jit(lambda step, steps: make_schedule(config, steps)(step))
    found = [float(rate(np.int32(step), np.int32(6))) for step in range(7)]
    # (1 + cos) / 2 at every 30 degrees.
    expected = 0.4 * np.array([1, 0.5 + 3**0.5 / 4, 0.75, 0.5, 0.25, 0.5 - 3**0.5 / 4, 0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
