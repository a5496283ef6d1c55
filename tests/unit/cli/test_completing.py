"""What the shell completes, in which shells, and at what price."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.cli import completing, main
from limbeck.data.named import CORPORA
from limbeck.methods import PRESETS
from limbeck.models.packaged import PACKAGED
from limbeck.studies.builtin import STUDIES

_HEAVY = ("torch", "transformers", "datasets", "nltk", "numpy", "accelerate")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs below `runs/`, one beside it, a recipe, and things that are neither."""
    for name in ("runs/first", "runs/second", "alone", "runs/empty", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        if name != "runs/empty":
            (tmp_path / name / "recipe.yaml").touch()
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _completed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    monkeypatch.setenv("_LIMBECK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    main([])
    return capsys.readouterr().out.split()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("limbeck com", ["compare"]),
        ("limbeck explain mgsr:l", ["mgsr:literal"]),
        ("limbeck evaluate runs/first --corpora dolly,vi", ["dolly,vicuna"]),
        ("limbeck study detec", ["detectors"]),
        ("limbeck report ", ["alone", "runs/first", "runs/second"]),
        ("limbeck report runs/", ["runs/first", "runs/second"]),
        ("limbeck train m", ["mine.yaml"]),
        ("limbeck fetch smollm2-135m-i", ["smollm2-135m-instruct"]),
        ("limbeck undo stat", ["status"]),
        ("limbeck undo status runs/s", ["runs/second"]),
        ("limbeck push runs/first --dry", ["--dry-run"]),
    ],
)
def test_it_completes(
    line: str, expected: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _completed(capsys, monkeypatch, line) == expected


@pytest.mark.usefixtures("place")
def test_names_are_those_of_the_registries() -> None:
    assert completing.complete_methods("") == [*sorted_like(PRESETS), "mine.yaml", "alone", "runs/first", "runs/second"]
    assert completing.complete_corpora("") == list(CORPORA)
    assert completing.complete_corpora("dolly,") == [f"dolly,{name}" for name in CORPORA if name != "dolly"]
    assert set(STUDIES) < set(completing.complete_studies(""))
    assert set(PACKAGED) <= set(completing.complete_models(""))


def sorted_like(names: object) -> list[str]:
    return list(names)  # type: ignore[call-overload]


def test_a_folder_that_cannot_be_read_offers_nothing(tmp_path: Path) -> None:
    assert completing.complete_runs(f"{tmp_path}/nothing/") == []
    assert completing.complete_recipes(f"{tmp_path}/nothing/x") == []


@pytest.mark.parametrize("line", ["limbeck explain m", "limbeck report ", "limbeck fetch s"])
def test_it_imports_nothing_heavy(line: str, place: Path) -> None:
    loaded = f"[name for name in {_HEAVY!r} if name in sys.modules]"
    code = f"import sys; from limbeck.cli import main; main([]); print('loaded', *{loaded}, file=sys.stderr)"
    environment = {**os.environ, "_LIMBECK_COMPLETE": "complete_bash", "COMP_WORDS": line,
                   "COMP_CWORD": str(len(line.split(" ")) - 1)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=place
    )
    assert done.stdout.split()
    assert done.stderr.split() == ["loaded"]


def _script(shell: str) -> str:
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "limbeck", "--show-completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str, tmp_path: Path) -> None:
    script = _script(shell)
    assert f"complete_{shell}" in script
    assert "limbeck" in script
    program = shutil.which(shell)
    if program is not None:
        file = tmp_path / "script"
        file.write_text(script)
        assert subprocess.run([program, "-n", str(file)], check=False).returncode == 0


def test_bash_completes_with_its_script(place: Path) -> None:
    (place / "bin").mkdir()
    (place / "bin" / "limbeck").write_text(f'#!/bin/sh\nexec {sys.executable} -m limbeck "$@"\n')
    (place / "bin" / "limbeck").chmod(0o755)
    (place / "script").write_text(_script("bash"))
    asked = (
        "source ./script; COMP_WORDS=(limbeck report runs/f); COMP_CWORD=2; _limbeck_completion limbeck;"
        ' printf "%s\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, env=environment, cwd=place)
    assert done.stdout.split() == ["runs/first"]
