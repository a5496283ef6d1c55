"""What the shell is offered behind a verb: names of methods, corpora, studies and models, and folders of runs.

Asked at every press of a key: no heavy library is imported, and no folder is searched deeply.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

_MOST_FOLDERS = 500


def complete_methods(incomplete: str) -> list[str]:
    """Methods and presets; and recipes, which `explain` takes too."""
    return [*_beginning(incomplete, _method_names()), *complete_recipes(incomplete)]


def complete_corpora(incomplete: str) -> list[str]:
    """Named corpora, behind the last comma."""
    from limbeck.data.named import CORPORA

    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(last, CORPORA) if name not in taken]


def complete_studies(incomplete: str) -> list[str]:
    """Built-in studies, and YAML files."""
    from limbeck.studies.builtin import INJECTED_ERRORS, STUDIES

    return [*_beginning(incomplete, [*STUDIES, INJECTED_ERRORS]), *_files(incomplete)]


def complete_packaged(incomplete: str) -> list[str]:
    """Models that a package carries."""
    from limbeck.models.packaged import PACKAGED

    return _beginning(incomplete, PACKAGED)


def complete_models(incomplete: str) -> list[str]:
    """Packaged models and folders of runs."""
    return [*complete_packaged(incomplete), *complete_runs(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Folders of runs, up to two levels below what was typed: `runs/first` behind nothing, too."""
    return _beginning(incomplete, map(str, _runs_near(incomplete)))


def complete_recipes(incomplete: str) -> list[str]:
    """YAML files, and folders of runs."""
    return [*_files(incomplete), *complete_runs(incomplete)]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str) -> list[str]:
    return _beginning(incomplete, (str(path) for path in _inside(_folder(incomplete)) if path.suffix == ".yaml"))


def _runs_near(incomplete: str) -> Iterator[Path]:
    above = [each for each in _inside(_folder(incomplete)) if each.is_dir() and str(each).startswith(incomplete)]
    for folder in above:
        if _is_run(folder):
            yield folder
        else:
            yield from (each for each in _inside(folder) if _is_run(each))


def _folder(incomplete: str) -> Path:
    return Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder, hidden things and the end of very long folders apart; nothing where it cannot be read."""
    try:
        seen = (path for path in folder.iterdir() if not path.name.startswith("."))
        return sorted(itertools.islice(seen, _MOST_FOLDERS))
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file()


def _method_names() -> list[str]:
    """The keys of `METHODS` and `PRESETS`, read from the source: to import it takes seconds, torch and all."""
    tree = ast.parse((Path(__file__).parents[1] / "methods.py").read_text(encoding="utf-8"))
    found: list[str] = []
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or node.value is None or not isinstance(node.target, ast.Name):
            continue
        if node.target.id in ("METHODS", "PRESETS"):
            entries = next(each for each in ast.walk(node.value) if isinstance(each, ast.Dict))
            keys = (key.value for key in entries.keys if isinstance(key, ast.Constant))
            found += [key for key in keys if isinstance(key, str)]
    return found
