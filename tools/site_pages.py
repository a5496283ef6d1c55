"""The site's navigation from patterns, and the refusal of pages that would ask another machine for something.

mkdocs calls these functions by their names (`hooks` of mkdocs.yml).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

# What a browser loads without being asked. A link that a reader follows is none of it.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preconnect|preload|prefetch|icon))"""
    r"""[^>]*?\bhref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
)


def on_config(config: Any) -> Any:
    """Put pages in the place of the patterns of `nav`."""
    folder = Path(config["docs_dir"])
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    config["nav"] = expanded(config["nav"], pages)
    return config


def on_post_build(config: Any) -> None:
    """End the build where a page would load something from elsewhere."""
    site = Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)} loads {address}"
        for path in sorted(site.rglob("*.html"))
        for address in foreign(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("the site would ask other machines:\n  " + "\n  ".join(found))


def foreign(html: str) -> list[str]:
    """Addresses of other machines that a browser which opens this page asks.

    >>> foreign('<script src="https://a.example/x.js"></script><img src="x.png"><a href="https://b.example">b</a>')
    ['https://a.example/x.js']
    >>> foreign('<link href="//c.example/font.css" rel="stylesheet">')
    ['//c.example/font.css']
    """
    return [source or style for source, style in _LOADED.findall(html)]


def expanded(nav: Any, pages: Iterable[str]) -> Any:
    """`nav` with each pattern replaced by the pages of its folder that nothing names and no earlier pattern took.

    >>> expanded([{"First": "a.md"}, {"More": ["*.md", {"Deep": ["x/*.md"]}]}], ["a.md", "b.md", "x/c.md"])
    [{'First': 'a.md'}, {'More': ['b.md', {'Deep': ['x/c.md']}]}]
    """
    left = [page for page in pages if page not in set(_named(nav))]
    return _filled(nav, left)


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(entry)


def _filled(nav: Any, left: list[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(entry, left) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    filled: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            taken = [page for page in left if fnmatch.fnmatch(page, entry) and page.count("/") == entry.count("/")]
            left[:] = [page for page in left if page not in taken]
            filled += taken
        else:
            filled.append(_filled(entry, left))
    return filled
