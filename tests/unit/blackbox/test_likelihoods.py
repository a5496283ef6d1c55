"""How likely a student finds rationales: against the definition, and where the loop uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.blackbox.artefacts import read_json, read_rows
from limbeck.blackbox.items import Item
from limbeck.blackbox.likelihoods import likelihood_rows
from limbeck.blackbox.loop import run_undo
from limbeck.blackbox.measuring_rounds import mean_nll
from limbeck.blackbox.recipes import UndoRecipe
from limbeck.blackbox.students import Reader, example_of
from limbeck.testing import save_tiny
from undo_kit import undo_values

ITEMS = {name: Item(id=name, question=f"{name}+1?", gold="2", kind="numeric") for name in ("1", "20", "300")}


def rationale(name: str, text: str) -> dict[str, Any]:
    return {"id": f"{name}:{text}", "item_id": name, "text": text}


@torch.no_grad()
def by_definition(model: Any, tokens: tuple[int, ...], is_response: tuple[bool, ...], *, size: int) -> float:
    """One row at a time, from the model's logits for the tokenizer's tokens: −(1/T) Σ log p(y_t | before)."""
    logits = model(torch.tensor([tokens])).logits[0, :, :size].double()
    total, count = 0.0, 0
    for place, (token, counts) in enumerate(zip(tokens, is_response, strict=True)):
        if counts:
            total -= float(logits[place - 1].log_softmax(-1)[token])
            count += 1
    return total / count


def test_it_is_the_mean_of_the_response_with_its_end_whatever_stands_beside_it(tmp_path: Path) -> None:
    model = str(save_tiny(tmp_path / "tiny", seed=3))
    student = {"scratch": None, "model": model, "max_prompt": 40, "max_new_tokens": 40}
    recipe = UndoRecipe.load(undo_values(tmp_path, student=student))
    asked = [
        rationale("1", "it is 2\n#### 2"),
        rationale("300", "#### 301"),
        rationale("20", "so 21"),
        rationale("1", ""),
    ]
    asked.insert(2, rationale("20", "far too long for it " * 10))
    found = likelihood_rows(recipe, model, asked, ITEMS)
    assert [row["id"] for row in found] == [row["id"] for row in asked if "far too" not in row["text"]]
    whole = AutoModelForCausalLM.from_pretrained(model).eval()
    encoder = Reader.of(recipe, model).encoder
    for row in found:
        text = row["id"].split(":", 1)[1]
        encoded = encoder.row(example_of(ITEMS[row["item_id"]]), response=text)
        assert encoded is not None
        assert row["num_tokens"] == sum(encoded.is_response)
        expected = by_definition(whole, encoded.tokens, encoded.is_response, size=len(encoder.tokenizer))
        assert row["nll"] == pytest.approx(expected, abs=2e-5)
        assert likelihood_rows(recipe, model, [row | {"text": text}], ITEMS) == [row]
    assert likelihood_rows(recipe, model, [], ITEMS) == []
    assert mean_nll([]) is None


def test_candidates_are_chosen_by_the_student_that_is_there_and_rounds_say_how_likely_the_probe_is(
    tmp_path: Path,
) -> None:
    method = {"base": "one-shot", "rounds": 0, "candidates": 2, "candidate": "student_likelihood"}
    run = run_undo(undo_values(tmp_path, method=method), say=lambda line: None).directory
    rationales = read_rows(run / "iter_00" / "rationales.jsonl")
    recipe, items = UndoRecipe.load(undo_values(tmp_path, method=method)), _items(run)
    weighed = likelihood_rows(recipe, str(run / "scratch"), rationales, items)
    assert [row["nll"] for row in rationales] == pytest.approx([row["nll"] for row in weighed], abs=2e-5)
    rows = read_rows(run / "iter_00" / "probe_nll.jsonl")
    assert {(row["when"], row["item_id"]) for row in rows} == {
        ("after", row["item_id"]) for row in read_rows(run / "iter_00" / "probe_rationales.jsonl")
    }
    metrics = read_json(run / "iter_00" / "metrics.json")
    assert metrics["rationale_nll"] == {"before": None, "after": pytest.approx(mean_nll(rows))}
    # A student of random weights knows nothing: log of its vocabulary; a few steps make it know a little.
    assert metrics["rationale_nll"]["after"] < mean_nll(weighed)  # type: ignore[operator]


def _items(run: Path) -> dict[str, Item]:
    from limbeck.blackbox.workshop import read_splits

    return {item.id: item for part in read_splits(run / "items.jsonl").parts().values() for item in part}
