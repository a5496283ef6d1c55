"""The one shift, and a model taken apart against the model whole."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck.errors import ModelError
from limbeck.losses.fused import token_scores
from limbeck.models.decoders import CausalDecoder
from limbeck.models.pair import Vocabulary
from limbeck.models.scoring import Scorer, scored_tokens, split_rows
from limbeck.testing import ARCHITECTURES, tiny_model, tiny_pair
from limbeck.types import Sequences, pack_rows

ROWS = [[257, 72, 73, 74, 75, 258], [257, 80, 81], [257, *range(90, 110), 258]]
PROMPT = [2, 3, 5]


def _sequences(rows=ROWS, prompt=PROMPT, pad_id: int = 256) -> Sequences:
    flags = [[i >= p for i in range(len(row))] for row, p in zip(rows, prompt, strict=True)]
    keys = [(0, i) for i in range(len(rows))]
    return pack_rows(rows, flags, origin=["reference"] * len(rows), keys=keys, pad_id=pad_id)


def _student_logp(scorer: Scorer, sequences: Sequences) -> torch.Tensor:
    where = scored_tokens(sequences)
    hidden = scorer.predicting(sequences, where)
    parts = token_scores(hidden, head=scorer.head, tokens_N=where.tokens, views=[], chunk=4)
    return torch.cat([part.student_logp for part in parts])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_response_token_is_scored_by_the_model_given_what_stands_before_it(architecture: str) -> None:
    pair = tiny_pair(architecture)
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    assert scorer.split
    with torch.no_grad():
        got = _student_logp(scorer, _sequences())
        expected = []
        for row, prompt in zip(ROWS, PROMPT, strict=True):
            for position in range(prompt, len(row)):
                logits = pair.student(torch.tensor([row[:position]])).logits[0, -1, : pair.vocabulary.width]
                expected.append(logits.log_softmax(-1))
    torch.testing.assert_close(got, torch.stack(expected), atol=2e-5, rtol=1e-4)


def test_garbage_in_padding_changes_nothing() -> None:
    pair = tiny_pair()
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    with torch.no_grad():
        assert torch.equal(_student_logp(scorer, _sequences(pad_id=256)), _student_logp(scorer, _sequences(pad_id=65)))


def test_a_row_that_begins_with_a_response_token_is_not_scored_there() -> None:
    sequences = pack_rows([[5, 6]], [[True, True]], origin=["reference"], keys=[(0,)], pad_id=0)
    assert scored_tokens(sequences).positions.tolist() == [1]
    assert sequences.num_scored == 1


def test_pad_equal_to_eos_keeps_the_eos_as_a_response_token() -> None:
    sequences = _sequences(pad_id=258)
    assert scored_tokens(sequences).tokens.tolist().count(258) == 2


def test_several_answered_turns_are_scored_where_they_stand() -> None:
    flags = [[False, True, True, False, False, True]]
    sequences = pack_rows([[1, 2, 3, 4, 5, 6]], flags, origin=["reference"], keys=[(0,)], pad_id=0)
    assert scored_tokens(sequences).tokens.tolist() == [2, 3, 6]


class _Odd(torch.nn.Module):
    """A model whose logits are not its head applied to its hidden states."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config
        self.base_model = inner.base_model

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        out.logits = out.logits * 1.5
        return out


def test_a_model_that_cannot_be_split_runs_whole_and_scores_the_same_tokens() -> None:
    model = _Odd(tiny_model())
    vocabulary = Vocabulary(size=261, shared=None, dropped_student=(261, 262, 263))
    scorer = Scorer.of(model, vocabulary=vocabulary)
    assert not scorer.split
    sequences = _sequences()
    with torch.no_grad():
        got = _student_logp(scorer, sequences)
        logits = model(sequences.tokens, attention_mask=sequences.attended.long()).logits
    where = scored_tokens(sequences)
    expected = logits[where.rows, where.positions - 1, :261].log_softmax(-1)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_a_model_of_no_numbers_is_named_and_refused() -> None:
    model = tiny_model()
    model.config.name_or_path = "some/model"
    vocabulary = Vocabulary(size=261, shared=None, dropped_student=(261, 262, 263))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ModelError, match="no logit of some/model is finite: its weights hold NaN or inf, or float32"):
        Scorer.of(model, vocabulary=vocabulary)


def test_soft_capped_logits_are_still_split() -> None:
    scorer = Scorer.of(tiny_model("gemma2"), vocabulary=Vocabulary(size=264, shared=None, dropped_student=()))
    assert scorer.split
    assert scorer.head.softcap is not None


def test_rows_are_grouped_longest_first_and_each_once() -> None:
    groups = split_rows(_sequences(), 2)
    assert groups == [[2, 0], [1]]


def test_weights_are_cast_once_for_many_forwards_and_anew_after_they_moved() -> None:
    pair = tiny_pair()
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary, autocast=torch.bfloat16)
    one = torch.tensor([[257, 72, 73]])
    rest = {"attended": one >= 0, "positions": torch.arange(3)[None]}

    def said() -> torch.Tensor:
        return scorer.next_logp(one, **rest, cache=CausalDecoder(scorer).start())

    each = said()
    with scorer.sustained():
        kept = said()
        with torch.no_grad():
            pair.student.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        assert torch.equal(said(), kept), "weights do not move inside"
    assert torch.equal(kept, each)
    assert not torch.allclose(said(), each, atol=1e-3)
    with torch.enable_grad():
        scorer.predicting(_sequences(), scored_tokens(_sequences())).float().sum().backward()
    assert pair.student.model.layers[0].mlp.up_proj.weight.grad is not None
