"""A model: a detector, its variables, and what is known about them.

    from imvad_jax.model import load, make

    model = make("patchcore", preset="cpu", weights="hub:timm/resnet18.tv_in1k@main")
    model = model.fit("good_parts")
    for part in model.predict("new_parts"):
        print(part.name, part.verdict, part.normalized_score)
    model.save("detector")  # and load("detector") anywhere else

Programs and Python make, fit, calibrate, ask, save and load it in the same way.
"""

from imvad_jax.model.load import load
from imvad_jax.model.make import make
from imvad_jax.model.model import Model
from imvad_jax.model.prediction import ImagePrediction

__all__ = ["ImagePrediction", "Model", "load", "make"]
