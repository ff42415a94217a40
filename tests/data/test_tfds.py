"""The tensorflow_datasets builder on a tiny tree."""

import numpy as np
import pytest

from imvad_jax.data.decode import read_image
from imvad_jax.data.masks import read_mask
from tests.data.trees import mvtec_tree


@pytest.mark.filterwarnings("ignore")
def test_builder_gives_images_masks_labels_and_defects(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from imvad_jax.data import tfds_mvtec_ad

    root = mvtec_tree(tmp_path / "manual" / "mvtec_ad")
    builder = tfds_mvtec_ad.MvtecAd(config="bottle", data_dir=tmp_path / "prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    )
    assert builder.name == "mvtec_ad"
    train = list(tfds.as_numpy(builder.as_dataset(split="train")))
    test = {e["name"].decode(): e for e in tfds.as_numpy(builder.as_dataset(split="test"))}
    assert len(train) == 6 and all(e["label"] == 0 for e in train)
    assert len(test) == 5 and sum(e["label"] for e in test.values()) == 3
    example = test["bottle/test/scratch/001.png"]
    path = str(root / "bottle/test/scratch/001.png")
    mask = read_mask(str(root / "bottle/ground_truth/scratch/001_mask.png"), path)
    assert example["defect"] == b"scratch"
    np.testing.assert_array_equal(example["image"], np.asarray(read_image(path)))
    np.testing.assert_array_equal(example["mask"][..., 0] > 0, mask)
    assert not test["bottle/test/good/000.png"]["mask"].any()
