"""What a training run reads: one corpus or a weighted list of them, with the validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.data.corpora import cut_validation, load_corpus, own_validation
from limbeck.data.examples import Dataset
from limbeck.data.shares import CorpusShare, quotas
from limbeck.errors import ConfigError
from limbeck.seeds import Seeds


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The training sets with one weight each, and the validation rows (None with `valid=None`)."""

    parts: tuple[Dataset, ...]
    weights: tuple[float, ...]
    valid: Dataset | None

    def lines(self) -> tuple[str, ...]:
        """What was read, for printing: every set with its format and counts."""
        several = len(self.parts) > 1
        shares = [weight / sum(self.weights) for weight in self.weights]
        train = [
            part.describe() + (f", {share:.0%} of the rows drawn" if several else "")
            for part, share in zip(self.parts, shares, strict=True)
        ]
        notes = [part.note for part in (*self.parts, self.valid) if part is not None and part.note]
        return (*train, *notes, f"validation: {self.valid.describe() if self.valid is not None else 'none'}")


def load_training(
    corpus: str | Sequence[CorpusShare],
    *,
    split: str = "train",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    valid: str | int | float | None = "auto",
    seeds: Seeds,
) -> TrainingData:
    """Load one corpus or several. `max_rows` holds for each set; `columns` and `valid` for all of them.

    `valid`: "auto" takes a set's own validation split, else cuts 500 rows (at most 5 %) from it by seed; a number of
    rows is divided among the sets by weight; a share is cut from each; a path is read; None leaves validation out.
    Raises `ConfigError` for an empty list, a corpus named twice, or a number of rows that does not fit.
    """
    shares = [CorpusShare(corpus)] if isinstance(corpus, str) else list(corpus)
    names = [share.corpus for share in shares]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"data.corpus lists {names or 'nothing'}; name each corpus once and set its weight")
    parts = [
        load_corpus(name, split=split, root=root, columns=columns, max_rows=max_rows, seeds=seeds) for name in names
    ]
    weights = tuple(share.weight for share in shares)
    if valid is None:
        return TrainingData(parts=tuple(parts), weights=weights, valid=None)
    if isinstance(valid, str) and valid != "auto":
        _, read = cut_validation(parts[0], spec=valid, seeds=seeds, columns=columns)
        return TrainingData(parts=tuple(parts), weights=weights, valid=read)
    divided = isinstance(valid, int) and not isinstance(valid, bool) and valid >= len(parts)
    counts = [max(1, rows) for rows in quotas(int(valid), weights=weights)] if divided else [valid] * len(parts)
    valids: list[Dataset] = []
    for index, (share, spec) in enumerate(zip(shares, counts, strict=True)):
        own = own_validation(share.corpus, root=root, columns=columns) if valid == "auto" else None
        if own is None:
            parts[index], own = cut_validation(parts[index], spec=spec, seeds=seeds.child(share.corpus))
        valids.append(own)
    return TrainingData(parts=tuple(parts), weights=weights, valid=_joined(valids, weights=weights))


def _joined(parts: Sequence[Dataset], *, weights: Sequence[float]) -> Dataset:
    """The rows of all sets; a run may use the first of them alone, and so these are of all sets, by weight."""
    if len(parts) == 1:
        return parts[0]
    placed = [
        ((place + 1) / weight, index, example)
        for index, (part, weight) in enumerate(zip(parts, weights, strict=True))
        for place, example in enumerate(part.examples)
    ]
    return Dataset(
        examples=tuple(example for *_, example in sorted(placed, key=lambda each: each[:2])),
        format=" + ".join(dict.fromkeys(part.format for part in parts)),
        source=" + ".join(part.source for part in parts),
        note="; ".join(part.note for part in parts if part.note),
    )
