"""Does a trivial number tell good test images from defective ones, or from the training's?"""

import os

from imvad_jax.audit import collect
from imvad_jax.audit.comparison import DEFECTIVE, GOOD, NEW, TRAIN, Comparison
from imvad_jax.audit.findings import Audit, make_audit
from imvad_jax.audit.ranges import Outside, Ranges
from imvad_jax.audit.separation import Separation
from imvad_jax.data.categories import find_categories
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.inputs import display_names, find_images
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.errors import UserError
from imvad_jax.progress import untracked

SIZE = 256  # pixels


def audit(
    data_dir: str | os.PathLike | None,
    category: str | None = None,
    *,
    dataset: str = "folder",
    new: str | os.PathLike | list | None = None,
    image_size: int = SIZE,
    cache_dir: str | None = None,
    reading: Reading = AS_IS,
    seed: int = 0,
    progress=untracked,
) -> Audit:
    """Whether a trivial number separates the sets of images of a category, or of a folder.

    Args:
      data_dir: The directory of the dataset, or a folder of good images. None: the decoded cache
        in `cache_dir` is used alone.
      category: Its name; None: the only one.
      dataset: The name of its layout.
      new: New images without labels: a file, a folder, a pattern, or a list of them. They are
        then compared with the good training images, and the test images are left out.
      image_size: Height and width in pixels that images are resized to.
      cache_dir: Where decoded images are kept, and what is found of them; None: nothing is kept.
      reading: How files are read.
      seed: Draws the split of a dataset that has none.
      progress: As `progress.track`.

    Returns:
      An `Audit`: its `lines` for a person, `as_dict()` for programs.

    Raises:
      UserError: no images there, several categories and none named, or a file that cannot be
        read.

    Example:
      >>> audit("MY_PARTS").lines  # doctest: +SKIP
      ['good test images against ...: ...; nothing found', ...]
    """
    data_dir = None if data_dir is None else os.fspath(data_dir)
    names = find_categories(
        [category] if category else [], dataset=dataset, data_dir=data_dir, decoded_dir=cache_dir,
        recursive=reading.recursive,
    )  # fmt: skip
    if len(names) > 1:
        raise UserError(f"--category is missing; one of {', '.join(names)}")
    geometry = Geometry(image_size, image_size)
    data = open_category(
        dataset, data_dir, names[0], geometry, cache_dir, seed=seed, progress=progress,
        reading=reading,
    )  # fmt: skip
    facts = collect.of_category(data, cache_dir, reading, decode=True)
    if new is None:
        return of_facts(data, facts)
    return _against_new(data, facts, new)


def of_category(data: CategoryData, cache_dir: str | None = None, reading: Reading = AS_IS):
    """The `Audit` of a category that is open; nothing is decoded for it. See `audit`."""
    return of_facts(data, collect.of_category(data, cache_dir, reading))


def of_facts(data: CategoryData, facts: collect.Facts) -> Audit:
    """The `Audit` of what is known of a category."""
    count = len(facts.names) - len(data.test_names)
    tests = [DEFECTIVE if label else GOOD for label in data.labels]
    return make_audit(f"{data.dataset}/{data.name}", facts, [TRAIN] * count + tests)


def _against_new(data: CategoryData, facts: collect.Facts, new) -> Audit:
    given = [new] if isinstance(new, str | os.PathLike) else new
    paths = find_images([os.fspath(one) for one in given]).images
    source = FileImages(paths, data.geometry, data.found.reader)
    found = collect.collect(display_names(paths), [source], paths)
    train = list(range(len(facts.names) - len(data.test_names)))
    both = collect.joined(facts.take(train), found)
    sets = [TRAIN] * len(train) + [NEW] * len(paths)
    return make_audit(f"{data.dataset}/{data.name} against new images", both, sets)


__all__ = [
    "Audit", "Comparison", "Outside", "Ranges", "Separation", "audit", "make_audit",
    "of_category", "of_facts",
]  # fmt: skip
