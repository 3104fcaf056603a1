"""Every link in the pages that people read leads somewhere; nothing is fetched."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import ROOT
from tests.markdown import anchors, links, pages


def broken(page: Path, text: str, root: Path = ROOT) -> list[str]:
    """The links in the page's `text` that lead nowhere."""
    return [link for link in links(text) if not _leads_somewhere(page, text, link, root)]


def _leads_somewhere(page: Path, text: str, link: str, root: Path) -> bool:
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme in ("http", "https"):
        return bool(parts.hostname) and port != 0 and not link.endswith((".", ","))
    if parts.scheme or parts.netloc:
        return parts.scheme == "mailto" and "@" in parts.path
    if not parts.path:
        return unquote(parts.fragment) in anchors(text)
    start = root if parts.path.startswith("/") else page.parent
    target = (start / unquote(parts.path).lstrip("/")).resolve()
    if not target.is_relative_to(root.resolve()) or not target.exists():
        return False
    if parts.path.endswith("/") and not target.is_dir():
        return False
    if not parts.fragment:
        return True
    return target.suffix == ".md" and unquote(parts.fragment) in anchors(target.read_text())


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text()) == []


def test_there_are_links_to_look_at() -> None:
    assert sum(len(links(page.read_text())) for page in pages()) > 50


SAMPLE = """\
# A page, of `code` and *more*

## The same
## The same
### [Linked](other.md) – with_underscores

[a](other.md) [b](other.md#there) [c](#the-same) [d](#the-same-1) ![e](picture.svg "Title")
[f](folder) [g](folder/) [h](../pages/other.md) [i](/pages/other.md)
[j]: https://example.org/x
[k](https://example.org/a_(b)) <https://example.org> [l](#a-page-of-code-and-more)
[m](#linked--with_underscores) [![n](picture.svg)](other.md) <a href="other.md">o</a>
[p](#by-hand) <a id="by-hand"></a> [q](mailto:somebody@example.org) `[r](nowhere.md)`

```md
[s](nowhere.md)
# Not a heading
```
<!-- [t](nowhere.md) -->
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Some pages; returns the sample's own."""
    (tmp_path / "pages" / "folder").mkdir(parents=True)
    (tmp_path / "pages" / "other.md").write_text("# There\n")
    (tmp_path / "pages" / "picture.svg").touch()
    (tmp_path / "outside.md").touch()
    return tmp_path / "pages" / "sample.md"


def test_good_links_of_every_kind_are_good(site: Path) -> None:
    assert broken(site, SAMPLE, site.parent.parent) == []
    assert len(links(SAMPLE)) == 20


@pytest.mark.parametrize(
    "link",
    [
        "[a](nowhere.md)",
        "[a](Other.md)",
        "![a](nowhere.svg)",
        "[a](#nowhere)",
        "[a](#The-same)",
        "[a](#the-same-2)",
        "[a](#not-a-heading)",
        "[a](other.md#nowhere)",
        "[a](picture.svg#there)",
        "[a](other.md/)",
        "[a](../../escaped.md)",
        "[a](/other.md)",
        "[a](https://)",
        "[a](https:///path)",
        "[a](http://[::1)",
        "[a](https://example.org:port/)",
        "[a](file:///etc/hosts)",
        "[a](//example.org/x)",
        "[a]()",
        "[a]: nowhere.md",
        '<img src="nowhere.svg">',
        "<gopher://example.org>",
        "[![a](nowhere.svg)](other.md)",
    ],
)
def test_a_broken_link_of_every_kind_is_found(site: Path, link: str) -> None:
    assert len(broken(site, f"{SAMPLE}\n{link}\n", site.parent.parent)) == 1


_TITLES = st.lists(st.from_regex(r"\A[A-Za-z0-9]+(?:[ -][A-Za-z0-9]+)*\Z"), min_size=1, max_size=6)


@settings(max_examples=30)
@given(_TITLES)
def test_every_heading_can_be_linked_to_and_nothing_else(titles: list[str]) -> None:
    page = "".join(f"## {title}\n\n" for title in titles)
    found = anchors(page)
    assert len(found) <= len(titles)
    assert {title.lower().replace(" ", "-") for title in titles} <= found
    assert broken(ROOT / "x.md", page + "".join(f"[a](#{anchor})\n" for anchor in found)) == []
    assert broken(ROOT / "x.md", f"{page}[a](#{max(found, key=len)}x)\n") != []
