"""A hook of MkDocs: pages and files of the site that lie elsewhere in the repository."""

import re
from pathlib import Path
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "engine/reference/README.md": "embedded-models.md",
    "engine/reference/emoji-sd/README.md": "emoji-sd.md",
    "engine/reference/emoji-dit/README.md": "emoji-dit.md",
}
"""A file of the repository and the page that it becomes."""
FILES = {
    "engine/reference/emoji-sd/samples.png": "emoji-sd.png",
    "engine/reference/emoji-dit/samples.png": "emoji-dit.png",
    "cluster.yaml": "cluster.yaml",
    "CITATION.cff": "CITATION.cff",
}
"""The files that those pages and others show or link."""
LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)#\s]+)")
STARTS = re.compile(r"\||[-*] |\d+\. ")
"""The first characters of a table's row or a list's item."""
INSIDE = re.compile(r"\||[-*] |\d+\. |\s")
"""The beginnings of lines after which a row or an item continues its table or list."""
SOURCE = re.compile(r'(?<=<img src=")[^"]+')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with links as the site needs them."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=linked(text, source)))
    for source, name in FILES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def linked(text: str, source: str) -> str:
    """Return a page whose links, relative to its place in the repository, lead to the site's."""

    def target(match: re.Match[str]) -> str:
        path = normpath(f"{Path(source).parent.as_posix()}/{match[0]}")
        return {**PAGES, **FILES}.get(path, path.removeprefix("docs/"))

    return SOURCE.sub(target, LINK.sub(target, text))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page with an empty line before each table and list.

    GitHub shows them without, Python's Markdown takes them for the paragraph before.
    """
    lines: list[str] = []
    is_code = False
    for line in markdown.split("\n"):
        is_code ^= line.lstrip().startswith("```")
        before = lines[-1] if lines else ""
        if not is_code and STARTS.match(line) and before.strip() and not INSIDE.match(before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
