"""The tutorial and the how-to pages, followed from top to bottom in a folder that was empty."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs_kit import FOLLOWED, ROOT, Block, blocks, lines_of
from limbeck.cli import main

_TUTORIAL = ROOT / "docs" / "tutorial.md"
_MAKERS = ("make_rows.py", "make_models.py")
# The tutorial trains for a minute, and processes of several ranks load their libraries anew.
_SLOW = ("tutorial.md", "several-gpus.md")
_PAGES = [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in _SLOW else [])
    for page in FOLLOWED
    if blocks(page)
]
_EXIT_CODES = re.compile(r"#.*\bexit code (\d+)(?: or (\d+))?")
_PROCESSES = re.compile(r"--(?:nproc-per-node|num_processes) (\d+)")
_IN_A_SHELL = re.compile(r"[|>&;]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What parts 1 and 2 of the tutorial leave behind: rows and two models."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(_TUTORIAL):
            if block.title in _MAKERS:
                _save(block, folder)
                runpy.run_path(block.title, run_name="__main__")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the page is followed; modules that it imported from there are gone afterwards."""
    place = tmp_path / "followed"
    if request.getfixturevalue("page") == _TUTORIAL:
        place.mkdir()
    else:
        shutil.copytree(made, place)
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(place)):
            del sys.modules[name]


@pytest.mark.parametrize("page", _PAGES)
def test_a_page_can_be_followed(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    names: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for block in blocks(page):
        if block.title:
            _save(block, folder)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True), names)
        elif block.language == "bash" and block.runs:
            for line in lines_of(block.text):
                _run(line, folder, monkeypatch, where=f"{page.name} line {block.line}: {line}")


def _save(block: Block, folder: Path) -> None:
    (folder / block.title).write_text(block.text)


def _run(line: str, folder: Path, patch: pytest.MonkeyPatch, *, where: str) -> None:
    """One command. Limbeck and Python run in this process, where warnings are errors; the rest in a shell."""
    said = _EXIT_CODES.search(line)
    allowed = {int(code) for code in said.groups() if code} if said else {0}
    words = line.partition(" #")[0].split()
    if words[0] == "PYTHONPATH=.":
        patch.syspath_prepend(folder)
        words, line = words[1:], line.removeprefix("PYTHONPATH=. ")
    if words[0] == "python" and not _IN_A_SHELL.search(line):
        runpy.run_path(words[1], run_name="__main__")
    elif words[0] == "limbeck" and not _IN_A_SHELL.search(line):
        assert main(words[1:]) in allowed, where
    else:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode in allowed, f"{where}\n{done.stdout}\n{done.stderr}"
        if processes := _PROCESSES.search(line):
            newest = max(folder.rglob("environment.json"), key=lambda path: path.stat().st_mtime)
            assert json.loads(newest.read_text())["ranks"] == int(processes.group(1)), where
