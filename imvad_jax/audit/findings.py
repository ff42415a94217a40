"""What an audit found: sets of images compared, copies, unequal files; as lines and JSON."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from imvad_jax.audit import files, statistics
from imvad_jax.audit.collect import Facts
from imvad_jax.audit.comparison import DEFECTIVE, GOOD, NEW, TRAIN, WORDS, Comparison, compare
from imvad_jax.audit.duplicates import Copies, find_copies
from imvad_jax.audit.ranges import Ranges
from imvad_jax.errors import listed

_NAMED = 3  # of a list of names in a line
_MOST_TEXTS = 8  # different texts that are numbers of their own


@dataclasses.dataclass(frozen=True)
class Audit:
    """All that an audit found.

    Attributes:
      title: What was looked at.
      sets: The set of each image, a key of `WORDS`.
      facts: What is known of the images.
      comparisons: Of the sets, two of a category, one of a folder.
      copies: Images that are there twice.
      unequal: What differs between the files, a sentence each.
    """

    title: str
    sets: Sequence[str]
    facts: Facts
    comparisons: Sequence[Comparison]
    copies: Sequence[Copies]
    unequal: Sequence[str]

    @property
    def crossing(self) -> list[Copies]:
        """The groups of copies of which one lies in another set."""
        return [one for one in self.copies if len({self.sets[n] for n in one.numbers}) > 1]

    @property
    def copies_line(self) -> str:
        """Copies and unequal files in one line."""
        parts = []
        for kind, groups in _by_kind(self.copies).items():
            pictures = sum(len(group.numbers) for group in groups)
            examples = [self._named(group) for group in groups]
            parts.append(f"{pictures} images are {kind} as another ({listed(examples, 2)})")
        text = "; ".join(parts) or (
            "no copies" if self.facts.thumbnails is not None else "no equal files"
        )
        if self.crossing:
            text = f"WARNING: {text}; {len(self.crossing)} of these groups lie in two sets"
        return "; ".join([text, *self.unequal])

    def _named(self, group: Copies) -> str:
        return " = ".join(self.facts.names[number] for number in group.numbers[:_NAMED]) + (
            f" and {len(group.numbers) - _NAMED} more" if len(group.numbers) > _NAMED else ""
        )

    @property
    def lines(self) -> list[str]:
        """The lines of a run and of a report: of each comparison one, and one of copies."""
        found = [one.line for one in self.comparisons]
        return [*found, self.copies_line]

    @property
    def warns(self) -> bool:
        """Whether one of the lines is a warning."""
        return bool(self.crossing) or any(one.warns for one in self.comparisons)

    @property
    def strongest(self) -> str | None:
        """The number of pixels that separates most of all comparisons; None: none was tried."""
        found = [one.strongest for one in self.comparisons if one.strongest]
        found = [one for one in found if one.name in statistics.NAMES]
        return max(found, key=lambda one: one.strength).name if found else None

    @property
    def ranges(self) -> Ranges | None:
        """The ranges of the numbers of pixels over the training images; None: not known."""
        train = [number for number, name in enumerate(self.sets) if name == TRAIN]
        return Ranges.of_numbers(self.facts.take(train).numbers)

    def as_dict(self) -> dict:
        """For JSON."""
        names = self.facts.names
        return {
            "title": self.title,
            "images": dict(Counter(self.sets)),
            "warns": self.warns,
            "lines": self.lines,
            "strongest": self.strongest,
            "notes": list(self.facts.notes),
            "comparisons": [one.as_dict() for one in self.comparisons],
            "copies": [
                {"kind": one.kind, "sets": sorted({self.sets[n] for n in one.numbers}),
                 "files": [names[n] for n in one.numbers]}
                for one in self.copies
            ],
            "unequal": list(self.unequal),
        }  # fmt: skip


def make_audit(title: str, facts: Facts, sets: Sequence[str]) -> Audit:
    """Compares the sets of images whose facts are known; `sets` names that of each."""
    where = {name: [n for n, own in enumerate(sets) if own == name] for name in WORDS}
    numbers = facts.numbers | _text_numbers(facts)
    values = {
        name: {key: column[np.asarray(chosen, int)] for key, column in numbers.items()}
        for name, chosen in where.items()
    }
    if NEW in sets:
        pairs = [(TRAIN, NEW)]
    else:
        pairs = [(GOOD, DEFECTIVE), (TRAIN, GOOD)]
    comparisons = [compare(values, where, *pair) for pair in pairs]
    copies: list[Copies] = []
    if facts.thumbnails is not None:
        copies = find_copies(facts.contents, facts.digests, facts.hashes, facts.thumbnails)
    elif any(facts.contents):
        none = np.zeros((0, statistics.THUMBNAIL, statistics.THUMBNAIL), np.uint8)
        copies = find_copies(facts.contents, facts.digests, None, none)
    return Audit(title, list(sets), facts, comparisons, copies, _unequal(facts, where))


def _text_numbers(facts: Facts) -> dict[str, np.ndarray]:
    """Of mode, format and camera, 1 and 0 for each of their texts: whether an image has it."""
    found = {}
    for kind in (files.MODE, files.FORMAT, files.CAMERA):
        texts = facts.texts.get(kind, [])
        different = sorted(set(texts))
        if 2 <= len(different) <= _MOST_TEXTS:
            for text in different[1:] if len(different) == 2 else different:
                name = f"{kind} {text or 'unknown'}"
                found[name] = np.array([float(own == text) for own in texts])
    return found


def _unequal(facts: Facts, where: Mapping[str, Sequence[int]]) -> list[str]:
    """What the files of the sets look like, and where they differ."""
    found = []
    for kind in (files.SIZE, files.MODE, files.FORMAT):
        texts = facts.texts.get(kind)
        if not texts:
            continue
        counts = Counter(texts)
        if len(counts) == 1:
            found.append(next(iter(counts)) or f"{kind} unknown")
            continue
        parts = [
            f"{name} {_counted(Counter(texts[n] for n in chosen))}"
            for name, chosen in where.items() if chosen
        ]  # fmt: skip
        what = {files.SIZE: "sizes", files.MODE: "modes", files.FORMAT: "formats"}[kind]
        found.append(f"{len(counts)} {what} mixed ({'; '.join(parts)})")
    if files.HAS_EXIF in facts.numbers:
        with_exif = int(np.nansum(facts.numbers[files.HAS_EXIF]))
        total = len(facts.names)
        found.append(f"EXIF in {with_exif} of {total}" if with_exif else "no EXIF")
    return found


def _counted(counts: Counter) -> str:
    if len(counts) > _NAMED:
        return f"{len(counts)} different"
    return ", ".join(f"{count} {text or 'unknown'}" for text, count in counts.most_common())


def _by_kind(copies: Sequence[Copies]) -> dict[str, list[Copies]]:
    found: dict[str, list[Copies]] = {}
    for one in copies:
        found.setdefault(one.kind, []).append(one)
    return found
