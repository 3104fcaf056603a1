"""Markdown as GitHub shows it, as far as the project's pages use it: links, anchors, code."""

import re
from collections import Counter
from pathlib import Path

from tests.harness import ROOT

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>[^\n`]*)\n(?P<code>.*?)^ *(?P=fence)[`~]* *$",
    re.MULTILINE | re.DOTALL,
)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_ID = re.compile(r"""<[a-z][a-z0-9]*\b[^>]*?\s(?:id|name)=["']([^"']+)["']""")
_LINKS = (
    re.compile(r"""\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+["'(][^)]*)?\s*\)"""),
    re.compile(r"^ {0,3}\[[^\]\n]+\]:[ \t]*<?([^\s>]+)>?", re.MULTILINE),
    re.compile(r"""<[a-z][a-z0-9]*\b[^>]*?\s(?:href|src)=["']([^"']*)["']"""),
    re.compile(r"<([a-z][a-z0-9+.-]*:[^\s<>]*)>"),
)


def pages() -> list[Path]:
    """The pages that people read."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(text: str) -> list[str]:
    """Where a page's links, images and references lead; code and comments have none."""
    shown = _CODE.sub("", _COMMENT.sub("", _FENCE.sub("", text)))
    return [found for pattern in _LINKS for found in pattern.findall(shown)]


def anchors(text: str) -> set[str]:
    """What a link into the page may name: its headings, each in its own way, and `id`s."""
    shown = _COMMENT.sub("", _FENCE.sub("", text))
    found: set[str] = set()
    times: Counter[str] = Counter()
    for heading in _HEADING.findall(shown):
        slug = _slug(heading)
        before, times[slug] = times[slug], times[slug] + 1
        found.add(f"{slug}-{before}" if before else slug)
    return found | set(_ID.findall(_CODE.sub("", shown)))


def _slug(heading: str) -> str:
    """The anchor of a heading: what is shown, in small letters, its spaces as hyphens."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]*>", "", text)
    text = re.sub(r"(?<!\w)(_{1,2})(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", text)  # emphasis
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Code in fences: the comment right before each (without its marks), its language, itself."""
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        comment = re.search(r"<!--\s*([^>]*?)\s*-->\Z", before)
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        found.append((comment[1] if comment else "", match["info"].strip(), code))
    return found
