"""What `limbeck doctor` found: one record a check, each with what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["ok", "note", "warning", "error"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note", "ok")
_EXIT_CODES: dict[Severity, int] = {"ok": 0, "note": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found. `severity`: "ok"; "note", good to know; "warning", a run would be worse than it could be;
    "error", it would fail or learn something wrong. `advice` says what to do, "" where there is nothing to do.
    """

    check: str
    severity: Severity
    message: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, in the order of the checks. `skipped` says why checks that need weights were left out, if so."""

    findings: tuple[Finding, ...]
    skipped: str = ""

    @property
    def worst(self) -> Severity:
        """The gravest severity."""
        found = {each.severity for each in self.findings}
        return next((severity for severity in _ORDER if severity in found), "ok")

    @property
    def exit_code(self) -> int:
        """0: nothing to do; 1: warnings; 2: errors.

        >>> Diagnosis(findings=(Finding(check="disk", severity="warning", message="full"),)).exit_code
        1
        """
        return _EXIT_CODES[self.worst]

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(each.severity == severity for each in self.findings)

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = [asdict(each) for each in self.findings]
        return {"worst": self.worst, "exit_code": self.exit_code, "skipped": self.skipped, "findings": found}

    def text(self, width: int = 80) -> str:
        """Plain text of at most `width` columns: a line a finding, its advice below it, then a sum."""
        lines = [line for each in self.findings for line in _lines(each, width=min(width, 100))]
        counts = ", ".join(f"{self.count(severity)} {severity}s" for severity in ("error", "warning", "note"))
        lines += ["", *_wrapped(f"{counts}, {self.count('ok')} checks without a finding", "", width)]
        lines += _wrapped(f"not looked at: {self.skipped}", "", width) if self.skipped else []
        return "\n".join(lines) + "\n"


def ok(check: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check=check, severity="ok", message=message)


def failed(check: str, error: Exception) -> Finding:
    """An error that a run would end with, as a finding: its first line, and what it says to do."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return Finding(check=check, severity="error", message=lines[0], advice=" ".join(line.strip() for line in lines[1:]))


def _lines(finding: Finding, *, width: int) -> Sequence[str]:
    head = f"{finding.severity:<8}{finding.check}: {finding.message}"
    advice = _wrapped(f"-> {finding.advice}", " " * 8, width, deeper=3) if finding.advice else []
    return [*_wrapped(head, "", width, deeper=8), *advice]


def _wrapped(text: str, indent: str, width: int, *, deeper: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        width=max(40, width),
        initial_indent=indent,
        subsequent_indent=indent + " " * deeper,
        break_long_words=False,
        break_on_hyphens=False,
    )
