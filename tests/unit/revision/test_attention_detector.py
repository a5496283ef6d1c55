"""The detector of attention: what later response tokens of real (random) teachers attend to, against loops."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
from revising_kit import differing, ones, pack, revise

from limbeck.errors import ConfigError
from limbeck.models.pair import Vocabulary
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.revision import AttentionArgmax, attending, gather_evidence
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import ARCHITECTURES, ScriptedModel, random_script, tiny_model, toy_evidence
from limbeck.types import Evidence, Sequences, pack_rows
from reference import detectors as reference

WINDOW = 16
# Lengths and answers of rows: longer than the window, two answers, one token, none.
ANSWERS = [(30, [(4, 30)]), (9, [(2, 9)]), (24, [(2, 5), (20, 24)]), (3, [(2, 3)]), (5, [])]
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)


@cache
def _model(architecture: str, layers: int = 5) -> Any:
    """With the attention that transformers chooses by itself; in float32, as eager attention computes anyway."""
    return tiny_model(architecture, seed=3, layers=layers)


def _vocabulary(size: int = 264) -> Vocabulary:
    return Vocabulary(size=size, shared=None, dropped_student=())


def _scorer(model: Any) -> Scorer:
    return Scorer.of(model, vocabulary=_vocabulary())


def _rows() -> Sequences:
    tokens = [[65 + (7 * i * (row + 2) + i * i) % 60 for i in range(length)] for row, (length, _) in enumerate(ANSWERS)]
    flags = [[any(first <= i < end for first, end in own) for i in range(length)] for length, own in ANSWERS]
    keys = [(0, row) for row in range(len(tokens))]
    return pack_rows(tokens, flags, origin=["student"] * len(tokens), keys=keys, pad_id=256)


def _attention(teacher: Scorer, rows: Sequences, **changed: Any) -> Evidence:
    settings: dict[str, Any] = {
        "student": ScriptedModel(random_script(1, vocab_size=264), vocab_size=264),
        "noise": None,
        "stop_ids": {258},
        "chunk": 7,
        "group_rows": 3,
        "device": torch.device("cpu"),
        "needs": ("attention",),
    }
    return gather_evidence(rows, teacher=teacher, **{**settings, **changed})


def _expected(model: Any, tokens: list[int], is_response: list[bool]) -> list[float]:
    """By transformers' own maps of one row alone, from a model that was eager from the start."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        maps = eager(torch.tensor([tokens]), output_attentions=True).attentions
    first = len(maps) - math.ceil(len(maps) / 4)
    kinds = (getattr(model.config, "layer_types", None) or ["full_attention"] * len(maps))[first:]

    def sees(layer: int, reader: int, i: int) -> bool:
        return i <= reader and (kinds[layer] == "full_attention" or reader - i < WINDOW)

    return reference.attention_received(
        [layer[0].tolist() for layer in maps[first:]], is_response=is_response, sees=sees
    )


@EVERY
def test_attention_is_that_of_the_loops_over_plain_transformers(architecture: str) -> None:
    model, rows = _model(architecture), _rows()
    evidence = _attention(_scorer(model), rows)
    found = evidence.columns["attention"]
    assert set(evidence.columns) == {"attention"}
    assert found.dtype == torch.float32
    for row, (length, own) in enumerate(ANSWERS):
        tokens, flags = rows.tokens[row, :length].tolist(), rows.is_response[row, :length].tolist()
        expected = _expected(model, tokens, flags)
        in_row = evidence.row == row
        places = [i for first, end in own for i in range(first, end)]
        assert evidence.position[in_row].tolist() == places
        assert found[in_row].tolist() == pytest.approx([expected[i] for i in places], rel=1e-4, abs=1e-6)
        if own:
            assert found[in_row].tolist()[-1] == 0.0
            assert all(value > 0.0 for value in found[in_row].tolist()[:-1])


@EVERY
def test_rows_are_read_alike_alone_in_any_order_and_however_wide_the_padding(architecture: str) -> None:
    teacher, rows = _scorer(_model(architecture)), _rows()
    together = _attention(teacher, rows, group_rows=5)
    order = [3, 0, 4, 2, 1]
    moved = _attention(teacher, rows.rows(order), group_rows=2, chunk=1)
    for place, row in enumerate(order):
        expected = together.columns["attention"][together.row == row]
        alone = _attention(teacher, rows.rows([row])).columns["attention"]
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(moved.columns["attention"][moved.row == place], expected, rtol=1e-4, atol=1e-6)


@EVERY
def test_the_other_columns_are_those_of_a_view_without_it(architecture: str) -> None:
    teacher, rows = _scorer(_model(architecture)), _rows()
    plain, read = _attention(teacher, rows, needs=()), _attention(teacher, rows)
    assert plain.columns == {}
    for name, column in vars(plain).items():
        if name != "columns":
            torch.testing.assert_close(vars(read)[name], column, rtol=1e-4, atol=1e-4)


@EVERY
@pytest.mark.parametrize("is_eager", [False, True])
def test_a_model_is_afterwards_as_it_was(architecture: str, is_eager: bool) -> None:
    model = copy.deepcopy(_model(architecture))
    if is_eager:
        model.set_attn_implementation("eager")
    before = model.config._attn_implementation
    assert before == ("eager" if is_eager or architecture == "gemma2" else "sdpa")
    ids = torch.tensor([[70, 71, 72, 73]])
    with torch.no_grad():
        logits = model(ids).logits
    _attention(_scorer(model), _rows())
    assert model.config._attn_implementation == before
    assert {each.config._attn_implementation for each in model.modules() if hasattr(each, "config")} == {before}
    assert not any(each._forward_hooks for each in model.modules())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)


def test_a_pass_that_fails_leaves_the_model_as_it_was() -> None:
    model = copy.deepcopy(_model("llama"))
    scorer = _scorer(model)
    before = model.config._attn_implementation
    assert before == "sdpa", "the tiny models are loaded as real ones are"

    def broken(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    scorer.view = broken
    rows = _rows()
    with pytest.raises(MemoryError):
        attending.view_with_attention(scorer, rows, scored_tokens(rows))
    assert model.config._attn_implementation == before
    assert not any(each._forward_hooks for each in model.modules())


def _listened(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which layers are read; none of them gives its map to the next."""
    heard = []
    listen = attending._Received._listen

    def noted(self: Any, layer: Any, *args: Any) -> Any:
        found = listen(self, layer, *args)
        assert found[1] is None
        heard.append(layer.layer_idx)
        return found

    monkeypatch.setattr(attending._Received, "_listen", noted)
    _attention(_scorer(model), _rows(), group_rows=5)
    return heard


@pytest.mark.parametrize(("layers", "read"), [(1, [0]), (3, [2]), (4, [3]), (5, [3, 4]), (8, [6, 7])])
def test_the_last_quarter_is_rounded_up(layers: int, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _listened(_model("qwen3", layers=layers), monkeypatch) == read


def test_each_model_is_called_once_a_group_with_every_need() -> None:
    class Counting(Scorer):
        views = 0

        def view(self, *args: Any) -> Any:
            type(self).views += 1
            return super().view(*args)

    plain = _scorer(_model("llama"))
    teacher = Counting(plain.model, vocabulary=plain.vocabulary, split=plain.split)
    rows = _rows()
    noise = RowNoise([Seeds(0).child(*key) for key in rows.keys])
    for number, needs in enumerate([(), ("attention",), ("uniform",), ("attention", "uniform")], start=1):
        student = ScriptedModel(random_script(1, vocab_size=264), vocab_size=264)
        evidence = _attention(teacher, rows, student=student, needs=needs, detector_noise=noise, group_rows=2)
        assert (student.views, Counting.views) == (3, 3 * number)
        assert set(evidence.columns) == set(needs)


def test_in_bf16_the_column_is_float32_and_close() -> None:
    exact, rounded = _model("llama"), copy.deepcopy(_model("llama")).bfloat16()
    rows = _rows()
    found = [_attention(_scorer(model), rows).columns["attention"] for model in (exact, rounded)]
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0.2, atol=0.02)


def test_rows_without_a_scored_token_give_an_empty_column() -> None:
    evidence = _attention(_scorer(_model("gpt2")), _rows().rows([4]))
    assert evidence.columns["attention"].shape == (0,)


# Who has no attention to show.


def test_a_viewer_that_is_no_model_is_refused_before_anything_is_called() -> None:
    student, teacher = ones(), differing(_1=(3, 0.9))
    with pytest.raises(ConfigError, match="a ScriptedModel does not show"):
        revise(pack([[1, 1]]), student, teacher, detector=AttentionArgmax())
    assert (student.views, teacher.views) == (0, 0)


def test_a_model_that_names_no_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(_model("llama"))
    scorer = _scorer(model)
    monkeypatch.setattr(type(model.model), "_can_record_outputs", {})
    with pytest.raises(ConfigError, match="a LlamaForCausalLM does not show"):
        _attention(scorer, _rows())


@pytest.mark.parametrize("output", [lambda found: (found[0], None), lambda found: found[0]])
def test_a_model_that_keeps_its_maps_to_itself_is_refused(output: Any) -> None:
    model = copy.deepcopy(_model("llama"))
    scorer = _scorer(model)
    model.model.layers[-1].self_attn.register_forward_hook(lambda _module, _args, found: output(found))
    with pytest.raises(ConfigError, match="a LlamaForCausalLM does not show"):
        _attention(scorer, _rows())
    assert model.config._attn_implementation == "sdpa"


# The score.


def test_the_score_is_the_attention_where_a_token_may_be_corrected() -> None:
    evidence = toy_evidence(attention=[0.1, 0.9, math.nan, 0.0], eligible=[True, False, True, True])
    found = AttentionArgmax()(evidence)
    assert found.tolist() == [pytest.approx(0.1), -math.inf, -math.inf, 0.0]
