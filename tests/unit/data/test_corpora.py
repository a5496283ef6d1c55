from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from limbeck.data.assembling import load_training
from limbeck.data.corpora import CORPORA, HUB, cut_validation, load_corpus
from limbeck.data.examples import Dataset, from_rows
from limbeck.data.shares import CorpusShare, quotas
from limbeck.errors import ConfigError, DataError, UnknownName
from limbeck.seeds import Seeds

SEEDS = Seeds(3)


def rows(count: int, word: str = "row") -> list[dict[str, str]]:
    return [{"prompt": f"{word} {i}?", "completion": str(i), "id": f"{word}{i}"} for i in range(count)]


def file_of(path: Path, count: int, word: str = "row") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows(count, word))))
    return path


def ids(dataset: Any) -> list[str]:
    return [example.id for example in dataset.examples]


def test_names() -> None:
    assert set(CORPORA) == {"starter", "dolly", "self-instruct", "vicuna", "sni", "sni-mixed", "unnatural"}
    with pytest.raises(UnknownName, match="Did you mean 'dolly'"):
        load_corpus("doly")


def test_starter_ships_with_the_package() -> None:
    train, valid, test = (load_corpus("starter", split=split) for split in ("train", "valid", "test"))
    assert len(train) >= 256
    assert len(test) >= 64
    assert len({example.category for example in train.examples}) == 8
    hashes = [e.content_hash() for part in (train, valid, test) for e in part.examples]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("corpus", "split", "count"),
    [
        ("dolly", "valid", 500),
        ("dolly", "test", 425),
        ("self-instruct", "test", 214),
        ("vicuna", "test", 68),
        ("sni", "test", 1440),
        ("sni-mixed", "test", 1275),
        ("unnatural", "test", 892),
    ],
)
def test_named_corpora_below_the_root(shared_data: Path, corpus: str, split: str, count: int) -> None:
    dataset = load_corpus(corpus, split=split, root=shared_data)
    assert len(dataset) == count
    assert {example.corpus for example in dataset.examples} == {corpus}


def test_a_name_without_root_split_or_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root.*\n.*dolly/train\.jsonl.*hub.*MiniLLM/dolly"):
        load_corpus("dolly")
    with pytest.raises(DataError, match=r"vicuna has no split 'train'"):
        load_corpus("vicuna", root=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_corpus("dolly", root=tmp_path)


def test_a_path_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_of(tmp_path / "sub" / "my.jsonl", 3)
    monkeypatch.chdir(tmp_path)
    assert load_corpus("sub/my.jsonl").examples[0].corpus == "my"
    with pytest.raises(DataError, match="is a folder"):
        load_corpus("sub/")


def test_max_rows_are_chosen_by_seed_in_file_order(tmp_path: Path) -> None:
    path = str(file_of(tmp_path / "my.jsonl", 50))
    some = ids(load_corpus(path, max_rows=10, seeds=SEEDS))
    order = ids(load_corpus(path))
    assert len(some) == 10
    assert some == sorted(some, key=order.index) != order[:10]
    assert some == ids(load_corpus(path, max_rows=10, seeds=Seeds(3)))
    assert some != ids(load_corpus(path, max_rows=10, seeds=Seeds(4)))
    assert ids(load_corpus(path, max_rows=99, seeds=SEEDS)) == order
    with pytest.raises(ConfigError, match="max_rows is 0"):
        load_corpus(path, max_rows=0, seeds=SEEDS)


def test_hub_ids_go_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(name: str, configuration: str | None, *, split: str, data_files: None) -> datasets.Dataset:
        calls.append((name, configuration, split))
        return datasets.Dataset.from_list([{"question": "2+2?", "answer": "4"}, {"question": "1+1?", "answer": "2"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    columns = {"prompt": "question", "completion": "answer"}
    dataset = load_corpus("owner/sums:main", split="test", columns=columns)
    assert calls == [("owner/sums", "main", "test")]
    assert dataset.format == "prompt-completion"
    assert dataset.source == "owner/sums:main test"
    assert ids(dataset) == ["owner/sums:main-1", "owner/sums:main-2"]
    assert dataset.examples[1].source == "owner/sums:main test row 2"


def test_root_hub_reads_the_files_that_the_papers_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `datasets` itself, with a folder in the place of the hub."""
    raw = [{"instruction": f"{i}?", "input": "", "output": str(i), "prompt": "Below …"} for i in range(1003)]
    long = [{"instruction": f"{i}?", "input": "x", "output": ["a", "b"], "prompt": "Below …"} for i in range(3)]
    for name, lines in (("dolly/raw.jsonl", raw), ("dolly/valid.jsonl", raw[:2]), ("sinst/11_/valid.jsonl", long)):
        path = tmp_path / "MiniLLM" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, lines)))
    load = datasets.load_dataset

    def from_folder(name: str, configuration: str | None, **settings: Any) -> Any:
        return load(str(tmp_path / name), configuration, cache_dir=str(tmp_path / "cache"), **settings)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    train, valid, test = (load_corpus("dolly", split=split, root=HUB) for split in ("train", "valid", "test"))
    assert [len(train), len(valid), len(test)] == [3, 1000, 2]
    assert train.examples[0].references == ("1000",)
    assert valid.examples[0].references == ("0",)
    assert test.note == "dolly test: 2 rows; the papers name 500"
    assert test.source == "MiniLLM/dolly valid.jsonl from the hub"
    assert load_corpus("sni", split="test", root=HUB).examples[0].references == ("a", "b")
    assert len(load_corpus("starter", root=HUB)) >= 256, "what ships with the package never comes from the hub"
    with pytest.raises(DataError, match=r"sni-mixed is not on the hub(?s:.*)limbeck evaluate and study: --root"):
        load_corpus("sni-mixed", split="test", root=HUB)


def test_what_differs_from_the_papers_is_said(tmp_path: Path) -> None:
    file_of(tmp_path / "unnatural" / "test_short.jsonl", 4)
    for part in ("train", "valid"):
        file_of(tmp_path / "dolly" / f"{part}.jsonl", 3, part)
    note = load_corpus("unnatural", split="test", root=tmp_path, max_rows=2).note
    assert note.startswith("unnatural test: 4 rows; the papers name 60,000, and their scripts read 10,000; outputs of")
    lines = load_training("dolly", root=tmp_path, seeds=SEEDS).lines()
    assert "dolly train: 3 rows; the papers name 14,000, and their scripts read 11,435" in lines


def test_hub_failure_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, configuration: str | None, *, split: str, data_files: None) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"no file here.*\n.*no route"):
        load_corpus("owner/sums")


def test_hub_validation_split_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"train": rows(9), "validation": rows(2, "held")}
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, configuration: list(table))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration, *, split, data_files: table[split])
    data = load_training("owner/sums", seeds=SEEDS)
    assert len(data.parts[0]) == 9
    assert data.valid is not None
    assert ids(data.valid) == ["held0", "held1"]


@pytest.mark.parametrize(
    ("count", "spec", "expected"),
    [(40, "auto", 2), (4, "auto", 1), (20_000, "auto", 500), (1000, 500, 500), (1000, 0.05, 50), (10, 0.01, 1)],
)
def test_cut_validation_sizes(count: int, spec: str | int | float, expected: int) -> None:
    asked = from_rows(rows(1)).examples[0]
    examples = tuple(replace(asked, id=str(i)) for i in range(count))
    dataset = Dataset(examples=examples, format="prompt-completion", source="rows")
    train, valid = cut_validation(dataset, spec=spec, seeds=SEEDS)
    assert (len(train), len(valid)) == (count - expected, expected)
    assert sorted(ids(train) + ids(valid)) == sorted(ids(dataset))
    order = {key: place for place, key in enumerate(ids(dataset))}
    assert ids(train) == sorted(ids(train), key=order.__getitem__)


def test_the_first_validation_rows_are_from_all_over_the_file() -> None:
    _, valid = cut_validation(from_rows(rows(4_000)), spec=400, seeds=SEEDS)
    places = [int(key.removeprefix("row")) for key in ids(valid)]
    assert 0.4 < sum(place > 2_000 for place in places[:100]) / 100 < 0.6


def test_cut_validation_depends_on_the_seed_alone() -> None:
    dataset = from_rows(rows(100))
    first, again, other = (ids(cut_validation(dataset, spec=10, seeds=Seeds(s))[1]) for s in (1, 1, 2))
    assert first == again != other


def test_cut_validation_from_a_file(tmp_path: Path) -> None:
    path = file_of(tmp_path / "held.jsonl", 3, "held")
    train, valid = cut_validation(from_rows(rows(5)), spec=str(path), seeds=SEEDS)
    assert (len(train), ids(valid)) == (5, ["held0", "held1", "held2"])


@pytest.mark.parametrize("spec", [0, -1, 0.0, 1.0, 1.5, 10, 11, True, "most", float("nan")])
def test_cut_validation_out_of_range(spec: str | int | float) -> None:
    with pytest.raises(ConfigError, match=r"data\.valid is"):
        cut_validation(from_rows(rows(10)), spec=spec, seeds=SEEDS)


def test_one_row_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="has one row"):
        cut_validation(from_rows(rows(1)), seeds=SEEDS)


def test_own_validation_split_of_a_named_corpus(tmp_path: Path) -> None:
    file_of(tmp_path / "dolly" / "train.jsonl", 30)
    file_of(tmp_path / "dolly" / "valid.jsonl", 4, "held")
    data = load_training("dolly", root=tmp_path, max_rows=20, seeds=SEEDS)
    assert data.valid is not None
    assert (len(data.parts[0]), len(data.valid)) == (20, 4)
    cut = load_training("dolly", root=tmp_path, valid=5, seeds=SEEDS)
    assert cut.valid is not None
    assert (len(cut.parts[0]), len(cut.valid)) == (25, 5)
    assert load_training("dolly", root=tmp_path, valid=None, seeds=SEEDS).valid is None


def test_several_sets_with_weights(tmp_path: Path) -> None:
    shares = [
        CorpusShare(str(file_of(tmp_path / "a.jsonl", 60, "a")), 3),
        CorpusShare(str(file_of(tmp_path / "b.jsonl", 40, "b"))),
    ]
    data = load_training(shares, valid=8, seeds=SEEDS)
    assert data.weights == (3, 1)
    assert [len(part) for part in data.parts] == [54, 38]
    assert data.valid is not None
    assert "".join(key[0] for key in ids(data.valid)) == "aaabaaab"
    text = "\n".join(data.lines())
    assert "format prompt-completion, 75% of the rows drawn" in text
    assert "validation: " in text
    shared = load_training(shares, valid=str(tmp_path / "a.jsonl"), seeds=SEEDS)
    assert shared.valid is not None
    assert ([len(part) for part in shared.parts], len(shared.valid)) == ([60, 40], 60)
    share = load_training(shares, valid=0.05, seeds=SEEDS)
    assert [len(part) for part in share.parts] == [57, 38]


def test_weights_out_of_range(tmp_path: Path) -> None:
    for weight in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="weight"):
            CorpusShare(corpus="a", weight=weight)
    for shares in ([], [CorpusShare("starter"), CorpusShare("starter")]):
        with pytest.raises(ConfigError, match="name each corpus once"):
            load_training(shares, seeds=SEEDS)


def test_quotas_sum() -> None:
    assert quotas(7, weights=[1, 1]) == (4, 3)
    assert quotas(100, weights=[0.2, 0.3, 0.5]) == (20, 30, 50)
    assert quotas(1, weights=[1e-9, 1]) == (0, 1)
