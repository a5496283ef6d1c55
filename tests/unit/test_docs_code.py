"""The documentation runs: Python executes offline, commands parse, recipes load, rows are read, links lead on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from docs_kit import FENCE, FOLLOWED, NOT_RUN, PAGES, ROOT, blocks, blocks_of, commands, simple_commands
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.cli.entry import app
from limbeck.config import Recipe
from limbeck.config.checks import TOP_KEYS
from limbeck.config.reading import Override, read_recipe
from limbeck.config.sections import SECTIONS, keys_of
from limbeck.data.examples import read_examples
from limbeck.losses import DIVERGENCES
from limbeck.sequences import SOURCES

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_OTHERS = ("pip", ".ci/run", "python", "head", "ls", "echo", "export")
"""Commands of bash blocks that are no program of this repository; on pages that are followed they run."""

page = pytest.mark.parametrize("page", PAGES, ids=NAMES)
WITH_PYTHON = [each for each in PAGES if each not in FOLLOWED and blocks_of(each, "python")]


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page registers is gone afterwards."""
    kept = [(registry, dict(registry)) for registry in (DIVERGENCES, SOURCES)]
    yield
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for line, block in blocks_of(page, "python"):
        # The empty lines in front make a traceback point into the page.
        exec(compile("\n" * line + block, str(page), "exec", dont_inherit=True), names)


@page
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"python", "python no-run", "bash", "yaml", "jsonl", ""}, block.line
        assert not block.title or page in FOLLOWED, f"line {block.line}: a file that no test writes"


@page
def test_what_does_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.text.startswith(NOT_RUN.strip()):
            assert block.language == "bash", block.line
            assert len(block.text.splitlines()[0]) > len(NOT_RUN) + 8, f"line {block.line}: no reason"


@page
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        for words in simple_commands(line):
            if words[0] == "make":
                targets = (ROOT / "Makefile").read_text()
                named = [word for word in words[1:] if "=" not in word]
                assert all(re.search(rf"^{target}:", targets, re.M) for target in named), line
            elif words[0] in ("torchrun", "accelerate"):
                assert words[words.index("-m") + 1] == "limbeck", line
                _parse(words[words.index("-m") + 2 :], line)
            elif words[0] == "limbeck":
                _parse(words[1:], line)
            else:
                assert words[0] in _OTHERS, f"a command that nothing checks: {line}"


def _parse(words: list[str], line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = [word for word in words if word != "--debug"]
    verb = command.commands.get(words[0])
    assert verb is not None, f"no such verb: {line}"
    if len(words) == 1:
        return
    if hasattr(verb, "commands"):
        assert words[1] in verb.commands, f"no such verb: {line}"
        if len(words) == 2:
            return
        verb.commands[words[1]].make_context(words[1], list(words[2:]))
        return
    context = verb.make_context(words[0], list(words[1:]))
    for setting in context.params.get("settings") or ():
        path = Override.parse(setting).path
        assert path[0] in TOP_KEYS, line
        assert path[0] not in SECTIONS or path[1] in keys_of(SECTIONS[path[0]]), line


@page
def test_recipes_load(page: Path, tmp_path: Path) -> None:
    for line, block in blocks_of(page, "yaml"):
        path = tmp_path / f"line-{line}.yaml"
        path.write_text(block)
        draft = read_recipe(path).values
        if "teacher" in draft:
            UndoRecipe.load(path)
            continue
        whole = {"method": {"base": "gkd"}, "models": {"teacher": "big", "student": "small"}, **draft}
        path.write_text(yaml.safe_dump(whole))
        Recipe.load(path)


@page
def test_rows_are_read(page: Path, tmp_path: Path) -> None:
    for line, block in blocks_of(page, "jsonl"):
        path = tmp_path / f"line-{line}.jsonl"
        path.write_text(block)
        assert len(read_examples(path)) == len(block.splitlines())


@page
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", text))
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith("http") or (page.parent / link).exists(), link
    for path in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./-]+)", text):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_index_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in NAMES[1:]:
        folder = f"{Path(name).parent}/"
        assert f"({name})" in readme or (folder != "docs/" and f"({folder})" in readme), name


def test_the_verbs_of_the_readme_are_those_of_the_command() -> None:
    command: Any = typer.main.get_command(app)
    words = [each for line in commands(ROOT / "README.md") for each in simple_commands(line)]
    shown = {each[1] for each in words if each[0] == "limbeck"}
    assert set(command.commands) - {"quickstart"} <= shown
