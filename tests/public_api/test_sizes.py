from __future__ import annotations

import ast
from pathlib import Path

import limbeck

_SOURCES = sorted(Path(limbeck.__file__).parent.rglob("*.py"))
_LINES_OF_A_FILE, _LINES_OF_A_FUNCTION = 300, 80


def test_files_and_functions_can_be_read_at_a_sitting():
    assert len(_SOURCES) > 100
    too_long = []
    for path in _SOURCES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > _LINES_OF_A_FILE:
            too_long.append(f"{path.name}: {lines}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                too_long += [f"{path.name} {node.name}: {lines}"] if lines > _LINES_OF_A_FUNCTION else []
    assert too_long == []
