"""What must hold whatever the code looks like, as functions that raise AssertionError.

`test_mutants.py` runs each of them on the real code, where it passes, and on code with an old wound of the field put
back, where it must fail. A check compares with something that was not written here: plain transformers, the loss that
transformers computes from labels, a loop in plain Python, the tokenizer's own chat template.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from limbeck.data.loader import batch, prompts
from limbeck.errors import NothingToLearn
from limbeck.evaluation.answers import Answerer, Decoding
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.fused import token_scores
from limbeck.losses.match import Likelihood, Match
from limbeck.losses.objective import Batch, Objective
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import extend
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.records import Example, Message
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import byte_tokenizer, toy_examples
from limbeck.types import Sequences, pack_rows
from mutants.rig import (
    END,
    EOS,
    PAD,
    encoder_of,
    exact_pair,
    one_step,
    ragged,
    toy_items,
    two_ranks,
)
from reference import equations

_REDUCTIONS = ("token", "sequence")


def _sft(reduction: str = "token") -> Objective:
    return Objective.of(Likelihood(), scales={"token": 1.0}, reduction=reduction)


def _kd(reduction: str = "token", *, supervised: float = 0.0) -> Objective:
    return Objective.of(Match(ForwardKL()), scales={"token": 1.0, "supervised": supervised}, reduction=reduction)


def _close(found: Any, expected: Any, *, what: str, tolerance: float = 1e-9) -> None:
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape, f"{what}: {tuple(found.shape)} numbers, not {tuple(expected.shape)}"
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), f"{what}: {found} is not {expected}"


def _places(sequences: Sequences) -> list[tuple[int, int]]:
    """Rows and positions of the tokens to be learned, from the flags, by loops."""
    flags = sequences.is_response.tolist()
    return [(b, s) for b, row in enumerate(flags) for s, flag in enumerate(row) if flag and s > 0]


def _logp_after(model: Any, prefix: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1)


# Row 1: the shift.


def every_response_token_is_scored_given_its_prefix() -> None:
    for architecture in ("llama", "gpt2"):
        pair, sequences = exact_pair(architecture), ragged()
        scorer, where = Scorer.of(pair.student, vocabulary=pair.vocabulary), scored_tokens(sequences)
        assert list(zip(where.rows.tolist(), where.positions.tolist(), strict=True)) == _places(sequences)
        with torch.no_grad():
            hidden = scorer.predicting(sequences, where)
        parts = token_scores(hidden, head=scorer.head, tokens_N=where.tokens, views=[], chunk=4)
        found = torch.cat([-Likelihood()(part) for part in parts])
        rows = [sequences.tokens[b].tolist() for b in range(len(sequences))]
        expected = [_logp_after(pair.student, rows[b][:s])[rows[b][s]] for b, s in _places(sequences)]
        _close(found, torch.stack(expected), what=f"log-probabilities of {architecture}", tolerance=1e-5)


def decoding_draws_from_the_distribution_that_is_scored() -> None:
    pair = exact_pair("gpt2")
    scorer = Scorer.of(pair.student, vocabulary=pair.vocabulary)
    asked = [[257, 72, 73, 74, 75, 76, 77], [257, 80], [257, *range(90, 102)]]
    rows = pack_rows(
        asked, [[False] * len(row) for row in asked], origin=["prompt"] * 3, keys=[(0,), (1,), (2,)], pad_id=PAD
    )
    extension = extend(
        CausalDecoder(scorer),
        rows,
        start=rows.lengths,
        limit=rows.lengths + 6,
        rows=torch.ones(3, dtype=torch.bool),
        sampling=Sampling(),
        noise=RowNoise([Seeds(0).child(row) for row in range(3)]),
    )
    drawn = extension.sequences
    for b, row in enumerate(asked):
        assert drawn.tokens[b, : len(row)].tolist() == row, "the row does not begin with its prompt"
        for s in range(len(row), int(drawn.lengths[b])):
            expected = _logp_after(pair.student, drawn.tokens[b, :s].tolist())[drawn.tokens[b, s]]
            _close(extension.behaviour_logp[b, s], expected, what=f"row {b}, position {s}", tolerance=1e-4)


# Row 2: the mask.


def the_loss_is_the_one_transformers_computes_from_labels() -> None:
    pair, sequences = exact_pair(), ragged(pad_id=EOS)
    stepped = one_step(pair, _sft(), drawn=sequences, micro_rows=len(sequences))
    model = copy.deepcopy(pair.student)
    loss = model(
        sequences.tokens,
        attention_mask=sequences.attended.long(),
        labels=sequences.tokens.masked_fill(~sequences.is_response, -100),
    ).loss
    loss.backward()
    _close(stepped.totals["token"], loss.detach(), what="loss", tolerance=1e-5)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    _close(stepped.gradient, gradient, what="gradient", tolerance=1e-5)


def the_pad_id_is_never_read() -> None:
    pair = exact_pair()
    plain = ragged(pad_id=PAD)
    expected = one_step(pair, _kd(), drawn=plain, micro_rows=2)
    for pad_id in (EOS, END, 65):
        other = ragged(pad_id=pad_id)
        assert other.lengths.tolist() == [6, 3, 8, 24], f"lengths with pad id {pad_id}: {other.lengths.tolist()}"
        found = one_step(pair, _kd(), drawn=other, micro_rows=2)
        _close(found.totals["token"], expected.totals["token"], what=f"loss with pad id {pad_id}")
        _close(found.gradient, expected.gradient, what=f"gradient with pad id {pad_id}")


def the_end_of_a_turn_is_learned_where_pad_is_eos() -> None:
    tokenizer = byte_tokenizer(chat=False, pad=False)
    encoder = encoder_of(tokenizer)
    examples = toy_examples(4)
    rows = encoder.rows(examples)
    sequences = batch([((0, i), row) for i, row in enumerate(rows)], pad_id=EOS)
    where = scored_tokens(sequences)
    for b, example in enumerate(examples):
        learned = where.tokens[where.rows == b].tolist()
        assert learned == [*example.references[0].encode(), EOS], f"row {b} learns {learned}"


def a_drawn_stop_token_is_learned() -> None:
    extension = _scripted_draw(steps=3, stop_id=EOS)
    where = scored_tokens(extension.sequences)
    assert extension.stopped.all(), "the scripted rows did not stop"
    for b in range(2):
        learned = where.tokens[where.rows == b].tolist()
        assert learned == [65, 65, EOS], f"row {b} learns {learned}"


def a_cut_response_teaches_no_end() -> None:
    encoder = encoder_of(byte_tokenizer(), max_prompt=20, max_length=24)
    (example,) = toy_examples(1)
    long = dataclasses.replace(
        example, messages=(Message(role="user", content="Hi"),), references=("a long answer that does not fit",)
    )
    row = encoder.row(long)
    assert row is not None, "the row was dropped"
    assert len(row.tokens) == 24, f"{len(row.tokens)} tokens"
    assert row.tokens[-1] != encoder.end_id, "a row that was cut ends with an end of turn"


# Row 3: the denominator.


def any_split_into_micro_batches_gives_one_gradient() -> None:
    pair, sequences = exact_pair(), ragged()
    for reduction in _REDUCTIONS:
        whole = one_step(pair, _kd(reduction), drawn=sequences, micro_rows=4)
        for micro_rows in (1, 3):
            split = one_step(pair, _kd(reduction), drawn=sequences, micro_rows=micro_rows)
            what = f"{reduction} reduction, {micro_rows} rows a micro-batch"
            _close(split.totals["token"], whole.totals["token"], what=f"loss, {what}")
            _close(split.gradient, whole.gradient, what=f"gradient, {what}", tolerance=1e-10)


def two_ranks_give_the_gradient_of_one() -> None:
    pair, sequences = exact_pair(), ragged()
    for reduction in _REDUCTIONS:
        one = one_step(pair, _kd(reduction), drawn=sequences, micro_rows=2)
        ranks = two_ranks(pair, _kd(reduction), drawn=sequences, micro_rows=1)
        for rank in ranks:
            _close(rank.totals["token"], one.totals["token"], what=f"loss, {reduction} reduction")
        averaged = torch.stack([rank.gradient for rank in ranks]).mean(0)
        _close(averaged, one.gradient, what=f"gradient, {reduction} reduction", tolerance=1e-10)


def a_reduction_is_the_mean_that_it_is_named_after() -> None:
    pair, sequences = exact_pair(), ragged()
    losses: list[list[float]] = [[] for _ in range(len(sequences))]
    for b, s in _places(sequences):
        prefix = sequences.tokens[b, :s].tolist()
        losses[b].append(-float(_logp_after(pair.student, prefix)[sequences.tokens[b, s]]))
    for reduction in _REDUCTIONS:
        found = one_step(pair, _sft(reduction), drawn=sequences, micro_rows=2).totals["token"]
        _close(found, equations.reduced(losses, reduction=reduction), what=f"{reduction} mean", tolerance=1e-5)


def the_weights_of_each_term_add_up_to_one() -> None:
    drawn, references = ragged(origin="student"), batch(toy_items(), pad_id=PAD)
    batches = [
        Batch(sequences=drawn.rows([0, 3]), terms=frozenset({"token"})),
        Batch(sequences=drawn.rows([1, 2]), terms=frozenset({"token"})),
        Batch(sequences=references, terms=frozenset({"supervised"})),
    ]
    for reduction in _REDUCTIONS:
        weights, _ = _kd(reduction, supervised=1.0).weights(batches, total=lambda numbers: numbers)
        for name in ("token", "supervised"):
            total = sum(float(weight[name].double().sum()) for weight in weights if name in weight)
            _close(total, 1.0, what=f"weights of {name}, {reduction} reduction", tolerance=1e-6)


# Row 5: one text for teacher and student, for training and evaluation.


def kl_is_the_formula_on_plain_logits() -> None:
    pair, sequences = exact_pair("qwen2"), ragged()
    gaps = []
    for b, s in _places(sequences):
        prefix = sequences.tokens[b, :s].tolist()
        teacher, student = (_logp_after(model, prefix).exp().tolist() for model in (pair.teacher, pair.student))
        gaps.append(equations.kl(teacher, student))
    found = one_step(pair, _kd(), drawn=sequences, micro_rows=2).totals["token"]
    _close(found, sum(gaps) / len(gaps), what="KL(teacher‖student)", tolerance=1e-5)


def a_teacher_that_is_the_student_costs_nothing() -> None:
    pair = exact_pair(twins=True)
    stepped = one_step(pair, _kd(), drawn=ragged(), micro_rows=2)
    _close(stepped.totals["token"], 0.0, what="loss", tolerance=1e-7)
    _close(stepped.gradient, torch.zeros_like(stepped.gradient), what="gradient", tolerance=1e-7)


def a_rows_prompt_is_the_templates_own() -> None:
    tokenizer = byte_tokenizer(adds_bos=True)
    encoder = encoder_of(tokenizer)
    for example in [*toy_examples(3), _conversation()]:
        turns = [
            {"role": m.role, "content": f"{m.content}\n\n{m.input}" if m.input else m.content} for m in example.messages
        ]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert list(encoder.prompt(example)) == asked, f"{example.id} is asked otherwise than the template asks"


def training_rollouts_and_evaluation_ask_alike() -> None:
    encoder = encoder_of(byte_tokenizer(), max_prompt=40, max_length=60, long_prompt="cut")
    long = Example(id="long", messages=(Message(role="user", content="word " * 40),), references=("Yes",))
    examples = [*toy_examples(2), _conversation(), long]
    rows = encoder.rows(examples)
    header = encoder.tokenizer("<turn>a:", add_special_tokens=False)["input_ids"]
    rolled = prompts([((0, i), row) for i, row in enumerate(rows)], pad_id=PAD)
    asked = _asked_in_evaluation(encoder, examples)
    for b, (example, row) in enumerate(zip(examples, rows, strict=True)):
        learned_from = list(row.tokens[: len(row.prompt)])
        assert row.is_response[len(row.prompt)], f"{example.id}: the response does not begin where the prompt ends"
        assert len(learned_from) <= 40, f"{example.id}: a prompt of {len(learned_from)} tokens"
        assert learned_from[-len(header) :] == header, f"{example.id}: the response header is lost"
        assert list(encoder.prompt(example)) == learned_from, f"{example.id}: the encoder asks otherwise"
        in_rollout = rolled.tokens[b, : int(rolled.lengths[b])].tolist()
        assert in_rollout == learned_from, f"{example.id}: a rollout begins otherwise"
        assert tuple(learned_from) in asked, f"{example.id}: evaluation asks otherwise"


def the_supervised_term_reads_the_references() -> None:
    pair, items = exact_pair(), toy_items(3)
    references = batch(items, pad_id=PAD)
    alone = one_step(pair, _sft(), drawn=references, micro_rows=2).totals["token"]
    beside = one_step(pair, _kd(supervised=1.0), drawn=ragged(origin="student"), items=items, micro_rows=2).totals[
        "supervised"
    ]
    _close(beside, alone, what="cross-entropy on references")


# Row 7: learning from nothing.


def a_step_without_a_token_is_refused() -> None:
    sequences = ragged()
    empty = dataclasses.replace(sequences, is_response=torch.zeros_like(sequences.is_response))
    first_only = torch.zeros_like(sequences.is_response)
    first_only[:, 0] = True  # a first token has nothing before it to be predicted from
    for rows in (empty, dataclasses.replace(sequences, is_response=first_only)):
        _refused(lambda rows=rows: one_step(exact_pair(), _sft(), drawn=rows, micro_rows=2))


def a_corpus_without_a_row_is_refused() -> None:
    _refused(lambda: encoder_of(byte_tokenizer(), max_prompt=4, max_length=9).rows(toy_examples(3)))


def _refused(action: Any) -> None:
    try:
        action()
    except NothingToLearn:
        return
    raise AssertionError("nothing to learn from, and nobody said so")


def _conversation() -> Example:
    turns = (("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Bye"))
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Example(id="talk", messages=messages, references=("Ciao",))


class _Scripted:
    """A decoder that says "A" until its last step, and then the stop token; it writes down what it was asked."""

    def __init__(self, *, steps: int, stop_id: int) -> None:
        self.steps, self.stop_id = steps, stop_id
        self.asked: set[tuple[int, ...]] = set()

    def start(self) -> Any:
        return []

    def next_logp(
        self, tokens: torch.Tensor, *, attended: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        if not cache:
            self.asked |= {tuple(row[flags].tolist()) for row, flags in zip(tokens, attended, strict=True)}
        cache.append(tokens)
        logp = torch.full((len(tokens), 261), -50.0)
        logp[:, self.stop_id if len(cache) == self.steps else 65] = 0.0
        return logp

    def keep(self, cache: Any, rows: torch.Tensor) -> None:
        pass


def _scripted_draw(*, steps: int, stop_id: int) -> Any:
    rows = pack_rows(
        [[257, 66], [257, 67, 68]], [[False] * 2, [False] * 3], origin=["prompt"] * 2, keys=[(0,), (1,)], pad_id=PAD
    )
    return extend(
        _Scripted(steps=steps, stop_id=stop_id),
        rows,
        start=rows.lengths,
        limit=rows.lengths + 9,
        rows=torch.ones(2, dtype=torch.bool),
        sampling=Sampling(temperature=0.0, stop_ids=frozenset({stop_id})),
        noise=RowNoise([Seeds(0).child(row) for row in range(2)]),
    )


def _asked_in_evaluation(encoder: Any, examples: Iterable[Example]) -> set[tuple[int, ...]]:
    decoder = _Scripted(steps=1, stop_id=END)
    answerer = Answerer(
        decoder=decoder,
        encoder=encoder,
        stop_ids=frozenset({END}),
        banned_ids=frozenset(),
        pad_id=PAD,
        device=torch.device("cpu"),
        batch_rows=2,
    )
    for _ in answerer.answers(list(examples), corpus="c", seeds=[1], decoding=Decoding(max_new_tokens=4)):
        pass
    return decoder.asked


CHECKS = (
    every_response_token_is_scored_given_its_prefix,
    decoding_draws_from_the_distribution_that_is_scored,
    the_loss_is_the_one_transformers_computes_from_labels,
    the_pad_id_is_never_read,
    the_end_of_a_turn_is_learned_where_pad_is_eos,
    a_drawn_stop_token_is_learned,
    a_cut_response_teaches_no_end,
    any_split_into_micro_batches_gives_one_gradient,
    two_ranks_give_the_gradient_of_one,
    a_reduction_is_the_mean_that_it_is_named_after,
    the_weights_of_each_term_add_up_to_one,
    kl_is_the_formula_on_plain_logits,
    a_teacher_that_is_the_student_costs_nothing,
    a_rows_prompt_is_the_templates_own,
    training_rollouts_and_evaluation_ask_alike,
    the_supervised_term_reads_the_references,
    a_step_without_a_token_is_refused,
    a_corpus_without_a_row_is_refused,
)
