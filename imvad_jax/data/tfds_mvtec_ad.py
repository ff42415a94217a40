"""A tensorflow_datasets builder `mvtec_ad`, from the same layout code as everything else.

MVTec AD must be fetched by hand (its licence asks for it): put the categories into
`<manual_dir>/mvtec_ad/<category>/...`.

    import tensorflow_datasets as tfds
    import imvad_jax.data.tfds_mvtec_ad  # registers the builder
    bottle = tfds.load("mvtec_ad/bottle", download_and_prepare_kwargs={"download_config":
        tfds.download.DownloadConfig(manual_dir=DIR)})
"""

import numpy as np
import tensorflow_datasets as tfds

from imvad_jax.data.decode import read_image
from imvad_jax.data.layouts import mvtec_ad
from imvad_jax.data.masks import read_masks

_CITATION = """\
@inproceedings{bergmann2019mvtec,
  title = {{MVTec AD}: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection},
  author = {Bergmann, Paul and Fauser, Michael and Sattlegger, David and Steger, Carsten},
  booktitle = {CVPR}, year = {2019}}
"""


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """One configuration a category; splits `train` (good only) and `test`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Images, masks, labels and kinds of defect."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Fetch MVTec AD from MVTec (CC BY-NC-SA 4.0) and unpack it to <manual_dir>/mvtec_ad/, so "
        "that <manual_dir>/mvtec_ad/bottle/train/good/000.png exists."
    )
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in mvtec_ad.CATEGORIES]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Industrial parts: good ones to train on, good and defective ones to test.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                    "label": tfds.features.ClassLabel(names=["good", "defective"]),
                    "defect": tfds.features.Text(),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        root = dl_manager.manual_dir / "mvtec_ad"
        assert self.builder_config  # one of BUILDER_CONFIGS
        category = mvtec_ad.MVTecAD().category(str(root), self.builder_config.name)
        return {
            "train": self._generate_examples(category.train),
            "test": self._generate_examples(category.test),
        }

    def _generate_examples(self, samples):
        for sample in samples:
            image = np.asarray(read_image(sample.path).convert("RGB"))
            mask = read_masks(sample.mask_paths, sample.path)
            yield (
                sample.name,
                {
                    "image": image,
                    "mask": mask[..., None].astype(np.uint8) * 255,
                    "label": sample.label,
                    "defect": sample.defect,
                    "name": sample.name,
                },
            )
