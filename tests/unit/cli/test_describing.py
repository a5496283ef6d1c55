"""The pages about verbs, options and environment variables say what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from limbeck.cli.describing import commands_page
from limbeck.cli.entry import app

_ROOT = Path(__file__).parents[3]
_DOCS = _ROOT / "docs"
_NAME = re.compile(r"[A-Z][A-Z_]{3,}")


def test_the_page_is_true() -> None:
    page = (_DOCS / "reference" / "commands.md").read_text()
    assert page == commands_page(), "python -m limbeck.cli.describing > docs/reference/commands.md"


def test_the_page_has_every_option_of_every_verb() -> None:
    sections = re.split(r"^#{2,3} `", commands_page(), flags=re.M)[1:]
    page = {section.split("`", 1)[0]: section for section in sections}

    def check(name: str, verb: Any) -> None:
        for inner, each in getattr(verb, "commands", {}).items():
            check(f"{name} {inner}", each)
        if not hasattr(verb, "commands"):
            for parameter in verb.params:
                for spelling in (each for each in parameter.opts if each.startswith("--") and each != "--help"):
                    assert re.search(rf"^\| `[^|]*{spelling}\b", page[name], re.M), (name, spelling)

    check("limbeck", typer.main.get_command(app))


def _variables(tree: ast.Module) -> Iterator[str]:
    """Names given to os.environ, directly or by a constant of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "environ" in ast.unparse(node.func):
            yield from _names(ast.Tuple(node.args))
        elif isinstance(node, ast.Subscript) and "environ" in ast.unparse(node.value):
            yield from _names(node.slice)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple):
            yield from _names(node.value)


def _names(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and _NAME.fullmatch(each.value):
            yield each.value


def test_the_page_names_every_environment_variable_that_is_read() -> None:
    sources = [path.read_text() for path in (_ROOT / "src").rglob("*.py")]
    read = {name for text in sources if "os.environ" in text for name in _variables(ast.parse(text))}
    section = (_DOCS / "cli.md").read_text().split("## Environment variables\n", 1)[1].split("\n## ", 1)[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([A-Z_]{4,})`", table))
    # PASSIVE is a value.
    assert named - {"PASSIVE"} == read - {"PASSIVE"}
