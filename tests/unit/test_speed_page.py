"""docs/results/speed.md is what benchmarks/speed.py makes of the programs' files, and judges them rightly."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from docs_kit import ROOT, program


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return program("benchmarks/speed.py")


def _body(**changes: Any) -> dict[str, Any]:
    machine = {"cpu": "abacus", "cores": 2, "threads": 2, "allocator": "default", "load": 0.1}
    findings = {"mgsr.of-base": 1.25}
    body = {"program": "step_profile", "command": "python benchmarks/step_profile.py", "quick": False}
    return {
        **body,
        "date": "1202-01-01",
        "machine": machine,
        "versions": {"torch": "0"},
        "findings": findings,
        **changes,
    }


def test_the_page_is_what_the_files_say(speed: ModuleType) -> None:
    assert speed.PAGE.read_text(encoding="utf-8") == speed.page(speed.read(speed.FOLDER))


def test_every_target_has_a_program(speed: ModuleType) -> None:
    assert len(speed.TARGETS) == 12, "the table of targets, forward KL and DAC-KL apart, and evaluation"
    for target in (*speed.TARGETS, *speed.BESIDE):
        assert (ROOT / "benchmarks" / f"{target.program}.py").is_file()


@pytest.mark.parametrize(("value", "verdict"), [(1.25, "| met |"), (1.3, "| met |"), (1.31, "| **missed** |")])
def test_a_bound_is_judged(speed: ModuleType, value: float, verdict: str) -> None:
    page = speed.page({"step_profile": _body(findings={"mgsr.of-base": value})})
    line = next(line for line in page.splitlines() if line.startswith("| MGSR step"))
    assert verdict in line
    assert f"time {value:.2f}" in line
    assert "- a: 1202-01-01, abacus, 2 cores" in page


def test_what_is_not_measured_says_so(speed: ModuleType) -> None:
    page = speed.page({"step_profile": _body(findings={})})
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(lines) == len(speed.TARGETS) + len(speed.BESIDE)
    assert all("not measured yet" in line for line in lines)


def test_a_quick_run_is_no_result(speed: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "step_profile.json").write_text(json.dumps(_body(quick=True)))
    with pytest.raises(SystemExit, match="quick run"):
        speed.read(tmp_path)
