"""What mkdocs asks while it builds the site: pages of the repository's root, and links to them."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# Files of the root that the site has as well, under the same names.
ROOT_PAGES = ("RESULTS.md", "BENCHMARKS.md", "BUILD_NOTES.md")
ROOT_PICTURES = ("benchmarks/*.png",)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files, config):
    """Adds the files of the root."""
    wanted = [*ROOT_PAGES, *(str(p.relative_to(ROOT)) for g in ROOT_PICTURES for p in ROOT.glob(g))]
    for name in wanted:
        found = File.generated(config, name, abs_src_path=str(ROOT / name))
        files.append(found)
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between pages as they lie in the repository into links of the site.

    A link to a file of the repository that the site does not have becomes its text. What leads
    nowhere in the repository either is left as it is, and mkdocs reports it.
    """
    name = page.file.src_uri
    pages = {file.src_uri for file in files if not file.inclusion.is_excluded()}
    here = PurePosixPath(name) if name in ROOT_PAGES else PurePosixPath("docs", name)

    def turned(match):
        mark, text, target = match.groups()
        path, hash_, fragment = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return match.group(0)
        inside = normpath(str(here.parent / path))
        on_site = inside.removeprefix("docs/")
        if on_site in pages:
            way = relpath(on_site, str(PurePosixPath(name).parent))
            return f"{mark}[{text}]({way}{hash_}{fragment})"
        if not mark and (ROOT / inside).exists():
            return text
        return match.group(0)

    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.M | re.S)  # blocks of code stay
    return "".join(p if i % 2 else _LINK.sub(turned, p) for i, p in enumerate(parts))
