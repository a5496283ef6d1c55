"""Where a study works, and what its names stand for on this machine: data below the root, stages as folders."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.config import Recipe
from limbeck.data.corpora import load_corpus
from limbeck.data.named import CORPORA
from limbeck.errors import ConfigError, DataError
from limbeck.records import Example
from limbeck.seeds import Seeds
from limbeck.studies.definition import ScoredCorpus, Study
from limbeck.studies.resolving import DATA, STAGE, Planned, scoring_key, stage_key
from limbeck.studies.rows import rows_path


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of a study: `work` for runs, `rows` for what is kept, `root` for the named corpora."""

    work: Path
    rows: Path
    root: Path | None = None

    def run(self, key: str) -> Path:
        """The directory of a run while it is trained."""
        return self.work / "runs" / key

    def stage(self, key: str) -> Path:
        """The directory of a stage's run."""
        return self.work / "stages" / key

    def references(self, teacher: str) -> Path:
        """What the teacher of these weights found in the references of the scored corpora."""
        return self.work / "references" / teacher

    def answers(self, key: str, scoring: str) -> Path:
        """The answers of a run while it is scored."""
        return self.work / "answers" / f"{key}-{scoring}"

    def kept(self, study: Study, planned: Planned) -> Path:
        """The file of a run's rows."""
        return rows_path(self.rows, key=planned.key, scoring=scoring_key(study))

    @contextlib.contextmanager
    def claimed(self, key: str) -> Iterator[None]:
        """Alone with a run: another process that wants it waits. A process that dies lets go."""
        path = self.work / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def model(self, study: Study, name: str) -> str:
        """A model's name with "@STAGE" as the folder of the stage, which must have been built."""
        if not name.startswith(STAGE):
            return name
        stage = study.stage(name.removeprefix(STAGE))
        return str(self.stage(stage_key(study, stage)) / "student")

    def data(self, text: str) -> str:
        """A corpus with "@data/" as the root. Raises `ConfigError` without one."""
        if not text.startswith(DATA):
            return text
        if self.root is None:
            raise ConfigError(f"{text} lies below the folder of the data sets; name it: limbeck study … --root DIR")
        return str(self.root / text.removeprefix(DATA))

    def local(self, study: Study, recipe: Recipe, *, run: Path) -> Recipe:
        """The recipe as it is run on this machine."""
        teacher = recipe.models.teacher
        models = replace(
            recipe.models,
            teacher=None if teacher is None else self.model(study, teacher),
            student=self.model(study, recipe.models.student),
        )
        corpus: Any = recipe.data.corpus
        if isinstance(corpus, str):
            corpus = self.data(corpus)
        elif corpus is not None:
            corpus = tuple(replace(share, corpus=self.data(share.corpus)) for share in corpus)
        valid = recipe.data.valid
        data = replace(
            recipe.data,
            corpus=corpus,
            valid=self.data(valid) if isinstance(valid, str) else valid,
            plain_text=None if recipe.data.plain_text is None else self.data(recipe.data.plain_text),
        )
        if self.root is not None and _needs_root(corpus):
            data = replace(data, root=str(self.root))
        return replace(recipe, models=models, data=data, run=str(run))

    def examples(self, corpus: ScoredCorpus) -> tuple[Example, ...]:
        """The rows of a scored corpus, in the order of its ids or of its file. Raises `DataError`."""
        text = self.data(corpus.corpus)
        root = self.root if text in CORPORA else None
        dataset = load_corpus(
            text,
            split=corpus.split,
            root=root,
            columns=corpus.columns or None,
            max_rows=None if corpus.ids is not None else corpus.rows,
            seeds=Seeds(0),
        )
        if corpus.ids is None:
            return dataset.examples
        by_id = {example.id: example for example in dataset.examples}
        missing = [id for id in corpus.ids if id not in by_id]
        if missing:
            raise DataError(
                f"{dataset.source} has no row '{missing[0]}' ({len(missing)} of {len(corpus.ids)} are missing), which "
                f"is scored as {corpus.name}\n  the ids are of another version of the data set"
            )
        return tuple(by_id[id] for id in corpus.ids)


def _needs_root(corpus: Any) -> bool:
    names = [corpus] if isinstance(corpus, str) else [share.corpus for share in corpus or ()]
    return any(name in CORPORA and not CORPORA[name].packaged for name in names)
