"""The documentation as blocks and commands, for the tests that parse and that run it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")] + sorted(
    # A study that is run here writes a table beside its rows.
    page
    for page in (ROOT / "docs").rglob("*.md")
    if "rows" not in page.parts
)
FOLLOWED = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
"""Pages that a reader follows from top to bottom: each block runs, in order."""

NOT_RUN = "# not run here: "
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
_TITLE = re.compile(r'(\w+) title="([\w.-]+)"')
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


def program(path: str) -> ModuleType:
    """A program of the repository that is no part of the package, as a module: "tools/result_pages.py"."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their annotations up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Block:
    """A fenced block. `title` is the file that the page asks the reader to save it as."""

    line: int
    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        """Whether the page does not say that it cannot."""
        return not self.text.startswith(NOT_RUN)


def blocks(page: Path) -> list[Block]:
    """The page's blocks, in order."""
    text, found = page.read_text(), []
    for fence in FENCE.finditer(text):
        info = fence.group(1).strip()
        titled = _TITLE.fullmatch(info)
        language, title = titled.groups() if titled else (info, "")
        line = text[: fence.start()].count("\n") + 1
        found.append(Block(line=line, language=language, title=title, text=fence.group(2)))
    return found


def blocks_of(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of the blocks whose info string is exactly this language."""
    return [(each.line, each.text) for each in blocks(page) if each.language == language and not each.title]


def lines_of(block: str) -> list[str]:
    """The commands of a bash block; one that goes on behind a backslash is one."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def commands(page: Path) -> list[str]:
    """Lines of bash blocks, and commands in backquotes."""
    shown = [line for block in blocks(page) if block.language == "bash" for line in lines_of(block.text)]
    prose = " ".join(FENCE.sub("", page.read_text()).split())
    # A bar in prose stands between alternatives.
    return shown + [
        text.partition(" | ")[0]
        for text in re.findall(r"`([^`]+)`", prose)
        if text.startswith(("limbeck ", "make ", "torchrun "))
    ]


def simple_commands(line: str) -> list[list[str]]:
    """The words of each part of a pipeline, without settings of the environment and redirections.

    >>> simple_commands("A=1 echo x | limbeck chat runs/my > y  # said")
    [['echo', 'x'], ['limbeck', 'chat', 'runs/my']]
    """
    parts: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word == "|":
            parts.append([])
        elif parts[-1] or not _ASSIGNMENT.match(word):
            parts[-1].append(word)
    return [part[: part.index(">")] if ">" in part else part for part in parts if part]
