"""What one home for each thing, whole names and kept rows must give; see `invariants.py`."""

from __future__ import annotations

import copy
from typing import Any

import torch

from limbeck.data.loader import batch
from limbeck.errors import DataError, UnknownName
from limbeck.evaluation.answers import Answerer, Decoding
from limbeck.evaluation.results import Results
from limbeck.losses import DIVERGENCES
from limbeck.losses.divergences import ForwardKL
from limbeck.losses.match import Match
from limbeck.losses.objective import Objective
from limbeck.methods import PRESETS, from_config
from limbeck.models.decoders import CausalDecoder
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.reporting.reduce import by_example
from limbeck.revision import gather_evidence
from limbeck.seeds import RowNoise, Seeds
from limbeck.sequences.source import Rollouts
from limbeck.testing import ScriptedModel, toy_examples
from limbeck.training.distiller import Distiller
from limbeck.training.validation import Validator
from limbeck.training.world import World
from limbeck.types import pack_rows
from mutants.invariants import _close
from mutants.rig import END, EOS, PAD, encoder_of, exact_pair, one_step, toy_items

# Row 4: a copy that misses a fix.


def validation_measures_what_a_step_minimises() -> None:
    """The same rows, cut otherwise: the same terms, for validation has no loss of its own."""
    pair, items = exact_pair(), toy_items()
    scales = {"token": 1.0, "supervised": 0.5}
    for reduction in ("token", "sequence"):
        objective = Objective.of(Match(ForwardKL()), scales=scales, reduction=reduction)
        drawn = batch(items, pad_id=PAD)
        stepped = one_step(pair, objective, drawn=drawn, micro_rows=len(items), items=items)
        validator = Validator(
            rows=[row for _, row in items],
            examples=(),
            answerer=None,
            decoding=Decoding(),
            seed=0,
            teacher=Scorer.of(pair.teacher, vocabulary=pair.vocabulary) if pair.teacher else None,
            micro_rows=2,
            first_micro_rows=2,
        )
        distiller = Distiller(Scorer.of(pair.student, vocabulary=pair.vocabulary), objective, chunk=3)
        numbers, _ = validator.run(distiller, World.start(device="cpu", strategy="auto"))
        assert numbers["terms"].keys() == stepped.totals.keys()
        for name, value in stepped.totals.items():
            _close(numbers["terms"][name], value, what=f"{name} of a validation, {reduction}")


def answers_and_rollouts_are_one_draw() -> None:
    """What evaluation answers is what a source would draw: the same ids banned, the same ids that stop."""
    pair, examples = exact_pair(), toy_examples(4)
    encoder = encoder_of(pair.tokenizer)
    decoder = CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary))
    banned = frozenset({*range(97, 105), *range(0, 32)})
    settings: dict[str, Any] = {"stop_ids": frozenset({EOS, END}), "banned_ids": banned}
    rollouts = Rollouts(
        decoder=decoder,
        sampling=Sampling(temperature=0.0, **settings),
        max_new_tokens=6,
        max_length=200,
        group_rows=4,
        pad_id=PAD,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )
    items = [((0, place), row) for place, row in enumerate(encoder.rows(examples))]
    drawn = rollouts.student(items)
    expected = {row.id: drawn.tokens[b][drawn.is_response[b]].tolist() for b, (_, row) in enumerate(items)}
    answerer = Answerer(
        decoder=decoder, encoder=encoder, pad_id=PAD, device=torch.device("cpu"), batch_rows=4, **settings
    )
    decoding = Decoding(temperature=0.0, max_new_tokens=6)
    rows = [row for group in answerer.answers(examples, corpus="c", seeds=[1], decoding=decoding) for row in group]
    assert {row.id: list(row.tokens) for row in rows} == expected
    assert not banned.intersection(token for tokens in expected.values() for token in tokens)


# Row 6: a knob that means two things.


def nothing_is_inherited_from_a_models_own_settings() -> None:
    """What a folder's generation_config says about drawing changes no distribution."""
    pair = exact_pair()
    other = copy.deepcopy(pair.student)
    other.generation_config.temperature, other.generation_config.top_k = 3.0, 1
    other.generation_config.do_sample = True
    one = torch.tensor([[257, 72, 73]])
    found = []
    for model in (pair.student, other):
        decoder = CausalDecoder(Scorer.of(model, vocabulary=pair.vocabulary))
        positions = torch.arange(3)[None]
        found.append(decoder.next_logp(one, attended=one > 0, positions=positions, cache=decoder.start()))
    _close(found[1], found[0], what="the distribution of a model with settings of its own")


def the_teachers_token_is_drawn_from_its_own_distribution() -> None:
    """Whatever the student is drawn with: token 0 where the position's uniform is below its probability at T = 1."""
    share = 0.3
    model = ScriptedModel(lambda prefix: [share, 1.0 - share], vocab_size=2)
    row = [0] * 60
    rows = pack_rows([row], [[False] + [True] * 59], origin=["student"], keys=[(0,)], pad_id=0)
    noise, again = (RowNoise([Seeds(0).child("teacher-token")]) for _ in range(2))
    evidence = gather_evidence(
        rows,
        student=model,
        teacher=model,
        noise=noise,
        stop_ids=(),
        chunk=7,
        group_rows=1,
        device=torch.device("cpu"),
    )
    expected = [0 if again.at([0], [place])[0] < share else 1 for place in range(1, 60)]
    assert evidence.teacher_token.tolist() == expected


# Row 8: names that are looked into.


def a_name_is_taken_whole_or_refused() -> None:
    for registry, name in ((PRESETS, "adaptive-gkd"), (PRESETS, "kd-mixed"), (DIVERGENCES, "mixed-jsd")):
        _refused(lambda registry=registry, name=name: registry[name])
    part = {"base": "gkd", "token": {"divergence": {"kind": "adaptive-jsd"}}}
    _refused(lambda: from_config(part, allow_import=False))


def _refused(action: Any) -> None:
    try:
        action()
    except UnknownName:
        return
    raise AssertionError("a name that stands for nothing was taken for another")


# Row 9: averages that cannot be taken apart.


def _answers() -> list[dict[str, Any]]:
    """Two corpora of different sizes, two seeds each."""
    sizes = {"large": 3, "small": 1}
    return [
        {
            "measure": "answers",
            "corpus": corpus,
            "seed": seed,
            "id": f"{corpus}-{place}",
            "scores": {"rouge_l": (place + 1) / 10 + seed / 100 + (corpus == "small") / 2},
        }
        for corpus, size in sizes.items()
        for seed in (10, 20)
        for place in range(size)
    ]


def every_average_is_that_of_the_rows_by_loops() -> None:
    rows = _answers()
    means = []
    for corpus in ("large", "small"):
        ids = sorted({row["id"] for row in rows if row["corpus"] == corpus})
        per_id = []
        for id in ids:
            scores = [row["scores"]["rouge_l"] for row in rows if row["id"] == id]
            per_id.append(sum(scores) / len(scores))
        means.append(sum(per_id) / len(per_id))
    _close(Results(rows=rows).mean(), sum(means) / 2, what="the mean over corpora")


def rows_that_would_weigh_twice_or_unequally_are_refused() -> None:
    rows = _answers()
    for wrong in ([*rows, rows[0]], rows[1:]):
        try:
            by_example(wrong, score="rouge_l")
        except DataError:
            continue
        raise AssertionError("an average over unequal things was taken")


CHECKS = (
    validation_measures_what_a_step_minimises,
    answers_and_rollouts_are_one_draw,
    nothing_is_inherited_from_a_models_own_settings,
    the_teachers_token_is_drawn_from_its_own_distribution,
    a_name_is_taken_whole_or_refused,
    every_average_is_that_of_the_rows_by_loops,
    rows_that_would_weigh_twice_or_unequally_are_refused,
)
