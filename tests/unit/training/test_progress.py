"""What is printed while a run goes on: sober in a pipe, one live line in a terminal."""

from __future__ import annotations

import errno
import io
from typing import Any

import pytest

from limbeck.training.progress import Progress, _fitting, _parts


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _row(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "terms": {"token": 1.25, "supervised": 2.5},
        "origin": {"student": 0.5, "reference": 0.5},
        "time": {"seconds": 0.1, "tokens_per_second": 123.4},
    }


def _print(stream: io.StringIO, *, is_main: bool = True) -> str:
    progress = Progress(steps=9, is_main=is_main, stream=stream)
    for step in range(1, 10):
        progress.step(_row(step))
    progress.validation(
        {"step": 9, "loss": 1.0, "cross_entropy": 2.0, "rouge_l": 0.25, "is_best": True, "metric": "rouge-l"}
    )
    progress.note("a path: /tmp/[a]/run and a :smile:")
    return stream.getvalue()


class Gone(io.StringIO):
    """A reader that went away, as `head` does."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


class GoneTerminal(Gone):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Gone, GoneTerminal])
def test_a_run_goes_on_without_a_reader(stream: type[io.StringIO]) -> None:
    assert _print(stream()) == ""


def test_in_a_pipe_the_first_and_last_step_are_lines() -> None:
    lines = _print(io.StringIO()).splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["step 1/9", "step 9/9"]
    assert "token 1.2500 supervised 2.5000" in lines[0]
    assert "123 tokens/s" in lines[0]
    assert "50% drawn" in lines[0]
    assert lines[2] == "validation at step 9: loss 1.0000, cross-entropy 2.0000, ROUGE-L 25.00 (best so far, kept)"
    assert lines[3] == "a path: /tmp/[a]/run and a :smile:", "what is printed is text, not markup"
    assert not any(sign in _print(io.StringIO()) for sign in "\r\x1b")


def test_in_a_terminal_one_line_is_overwritten() -> None:
    text = _print(Terminal())
    assert text.count("\rstep ") == 9
    assert "step 5/9" in text


def test_a_narrow_terminal_shows_whole_numbers() -> None:
    row = {"step": 7, "terms": {"token": 1.25, "span": 0.5}, "origin": {}}
    row["time"] = {"seconds": 1.0, "tokens_per_second": 123.0}
    parts = _parts(row, steps=9, seconds_left=3.0)
    whole = "step 7/9  3 s left  token 1.2500 span 0.5000  123 tokens/s  100% drawn"
    assert _fitting(parts, 100) == whole
    for width in range(8, 80):
        shown = _fitting(parts, width)
        assert len(shown) <= width
        assert whole.startswith(shown)
        assert set(shown.split()) <= set(whole.split())


def test_other_ranks_are_silent() -> None:
    assert _print(io.StringIO(), is_main=False) == ""
