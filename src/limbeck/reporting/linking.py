"""Where a click on a table's cell leads: to a place of the same page, or to a file beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from urllib.parse import quote


@dataclass(frozen=True, kw_only=True)
class Links:
    """Words of a cell, each with where it leads: "#" and an id of the page, a path relative to it, or "" for nowhere.

    >>> Links(parts=(("a.jsonl.gz", "rows/a.jsonl.gz"), ("b waits", ""))).text()
    'a.jsonl.gz b waits'
    """

    parts: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """The words without what they lead to."""
        return " ".join(" ".join(words.split()) for words, _ in self.parts)

    def html(self) -> str:
        """The words, those that lead somewhere as links."""
        return " ".join(linked(escape(" ".join(words.split())), to) for words, to in self.parts)


def linked(content: str, to: str) -> str:
    """HTML as a link; `to` can name no address outside: all but "#id" is quoted as a path, a colon too.

    >>> linked("a", "#rows"), linked("a", "javascript:alert(1)"), linked("a", "")
    ('<a href="#rows">a</a>', '<a href="javascript%3Aalert%281%29">a</a>', 'a')
    """
    if not to:
        return content
    target = to if re.fullmatch(r"#[\w.-]+", to) else quote(to.lstrip("/"))
    return f'<a href="{escape(target)}">{content}</a>'


def slug(text: str) -> str:
    """A text as a part of an id: letters and digits of ASCII, the rest a hyphen.

    >>> slug("What the clip keeps (mgsr)")
    'what-the-clip-keeps-mgsr'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
