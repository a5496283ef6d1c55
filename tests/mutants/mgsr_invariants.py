"""What must hold of MGSR's parts (arXiv 2407.10068) whatever the code looks like; see `invariants.py`."""

from __future__ import annotations

import torch
from torch import nn

from limbeck.losses.clip_networks import Bounds
from limbeck.losses.correlation import Correlation
from limbeck.losses.dac import DACKL
from limbeck.losses.match import Likelihood, TokenScores
from limbeck.losses.objective import Objective
from limbeck.models.pair import Vocabulary
from limbeck.models.scoring import Scorer, scored_tokens, span_pairs
from limbeck.revision import SCRG, Heuristic, RandomToken, Revision
from limbeck.revision.attending import view_with_attention
from limbeck.spans import Learned, SpanFinder, TokenPieces, Whole, Window
from limbeck.testing import ScriptedModel, peaked, scripted_rollouts, tiny_model, toy_evidence
from limbeck.types import Sequences, pack_rows
from mutants.rig import Item, exact_pair, one_step, toy_items
from reference import detectors, mgsr
from reference import spans as plain_spans

V = 5


def _revised(response: list[int], student: dict[int, list[float]], teacher: dict[int, list[float]]) -> Revision:
    """SCRG on one drawn row; the models say at each place of the response what they are told, else mostly 1."""

    def model(told: dict[int, list[float]]) -> ScriptedModel:
        return ScriptedModel(lambda prefix: told.get(len(prefix) - 2, peaked(1, share=0.9, vocab_size=V)), vocab_size=V)

    drawn = pack_rows(
        [[0, 0, *response]], [[False, False, *[True] * len(response)]], origin=["student"], keys=[(0, 0)], pad_id=0
    )
    rollouts = scripted_rollouts(model(student), max_new_tokens=len(response), temperature=0.0)
    return SCRG(greedy=True).revise(drawn, rollouts=rollouts, student=model(student), teacher=model(teacher), chunk=3)


def the_largest_mismatch_is_corrected() -> None:
    """Eq. 3: of two mismatches the second has the larger KL; a larger one still is no mismatch."""
    agreeing = [0.0001, 0.9996, 0.0001, 0.0001, 0.0001]
    teacher = {
        1: peaked(2, share=0.5, vocab_size=V),
        2: agreeing,
        3: peaked(3, share=0.97, vocab_size=V),
    }
    student = {2: [0.25, 0.3, 0.25, 0.1, 0.1]}
    found = _revised([1, 1, 1, 1, 1], student, teacher)
    assert [each.position for each in found.corrections] == [2 + 3]
    assert found.corrections[0].teacher_token == 3


def everything_before_the_correction_is_kept() -> None:
    """Eq. 4: y_<j stays, y_j is the teacher's, the rest is the student's."""
    teacher = {3: peaked(3, share=0.97, vocab_size=V)}
    found = _revised(
        [1, 2, 4, 1, 4],
        {4: peaked(2, share=0.9, vocab_size=V)},
        {
            **teacher,
            1: peaked(2, share=0.9, vocab_size=V),
            2: peaked(4, share=0.9, vocab_size=V),
            4: peaked(4, share=0.9, vocab_size=V),
        },
    )
    assert found.sequences.tokens.tolist() == [[0, 0, 1, 2, 4, 3, 2]]


def the_error_is_found_by_the_students_surprise() -> None:
    """KL(student‖teacher) is largest at place 1, KL(teacher‖student) at place 3."""
    student = {1: [0.0005, 0.9485, 0.05, 0.0005, 0.0005], 3: [0.24, 0.25, 0.24, 0.2695, 0.0005]}
    teacher = {1: [0.0005, 0.0005, 0.998, 0.0005, 0.0005], 3: [0.001, 0.0005, 0.001, 0.0005, 0.997]}
    forward, reverse = {}, {}
    for place in (1, 3):
        forward[place] = sum(t * _log(t / s) for t, s in zip(teacher[place], student[place], strict=True))
        reverse[place] = sum(s * _log(s / t) for t, s in zip(teacher[place], student[place], strict=True))
    assert (max(forward, key=forward.__getitem__), max(reverse, key=reverse.__getitem__)) == (3, 1)
    found = _revised([1, 1, 1, 1, 1], student, teacher)
    assert found.corrections[0].position == 2 + max(reverse, key=reverse.__getitem__)


def the_token_that_later_ones_read_has_the_attention() -> None:
    """A token's column is the mean, over who sees it from behind in the response, of the last quarter's maps."""
    model = tiny_model("gemma3", seed=3, layers=5)
    tokens = [65 + (5 * i + i * i) % 60 for i in range(30)]
    flags = [i >= 3 for i in range(30)]
    rows = pack_rows([tokens], [flags], origin=["student"], keys=[(0, 0)], pad_id=0)
    scorer = Scorer.of(model, vocabulary=Vocabulary(size=264, shared=None, dropped_student=()))
    found = view_with_attention(scorer, rows, scored_tokens(rows))[1].tolist()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(torch.tensor([tokens]), output_attentions=True).attentions[3:]
    windows = [16 if kind == "sliding_attention" else 999 for kind in model.config.layer_types[3:]]
    assert windows == [999, 16]
    expected = detectors.attention_received(
        [layer[0].tolist() for layer in maps], is_response=flags, sees=lambda layer, k, i: k - i < windows[layer]
    )
    assert max(abs(one - other) for one, other in zip(found, expected[3:], strict=True)) < 1e-5


def a_loop_begins_at_its_second_turn_in_its_own_row() -> None:
    """Two rows of which one goes round, and the other begins as the first does."""
    tokens = [[1, 2, 3, 1, 2, 3], [1, 2, 3, 4]]
    evidence = toy_evidence(
        drawn_token=[*tokens[0], *tokens[1]], row=[0] * 6 + [1] * 4, position=[*range(2, 8), *range(2, 6)]
    )
    found = Heuristic(loop_tokens=3, rise=None, top_p=None)(evidence)
    assert (found > -torch.inf).nonzero().flatten().tolist() == [3]


def a_random_error_is_drawn_anew_each_round() -> None:
    """With one number a token for all rounds, the second round takes the second largest of the first."""
    disagreeing = ScriptedModel(lambda _: peaked(3, share=0.9, vocab_size=V), vocab_size=V)
    agreeing = ScriptedModel(lambda _: peaked(1, share=0.9, vocab_size=V), vocab_size=V)
    rows, length = 40, 6
    drawn = pack_rows(
        [[0, *[1] * length]] * rows,
        [[False, *[True] * length]] * rows,
        origin=["student"] * rows,
        keys=[(0, row) for row in range(rows)],
        pad_id=0,
        limits=[1 + length] * rows,
    )
    rollouts = scripted_rollouts(agreeing, max_new_tokens=length, temperature=0.0, group_rows=rows)
    scrg = SCRG(detector=RandomToken(), rounds=2, greedy=True)
    found = scrg.revise(drawn, rollouts=rollouts, student=agreeing, teacher=disagreeing, chunk=99)
    assert found.evidence is not None
    numbers = found.evidence.columns["uniform"].view(rows, length)
    second = {each.row: each.response_place for each in found.corrections if each.round == 2}
    runners_up = numbers.argsort(dim=1)[:, -2].tolist()
    assert sum(second[row] == place for row, place in enumerate(runners_up)) < rows // 2


def _log(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).log())


class _Told(nn.Module):
    """Bounds that are a function of what the network sees: of its mean."""

    def forward(self, features: torch.Tensor) -> Bounds:
        mean_n = features.mean(-1)
        return Bounds(lower=mean_n - 2.0, upper=mean_n + 1.0)


def _scores() -> TokenScores:
    generator = torch.Generator().manual_seed(0)
    target, student = (torch.randn(4, 11, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    return TokenScores(
        student_logp=student.log_softmax(-1).requires_grad_(),
        target_logp=target.log_softmax(-1),
        tokens=torch.zeros(4, dtype=torch.long),
    )


def the_clip_is_that_of_the_equations() -> None:
    """Eq. 7-8: the target class once, the teacher normalised over what is kept."""
    scores = _scores()
    for part in (DACKL(top=4), DACKL(features="full")):
        term = part.build(vocabulary_size=11, generator=torch.Generator()).double()
        term.network = _Told()
        found = term.measured(scores)
        for n in range(4):
            p, q = scores.target_logp[n].exp().tolist(), scores.student_logp[n].exp().tolist()
            lower, upper = (mgsr.logit(found.values[name][n].item()) for name in ("lower", "upper"))
            expected = mgsr.dac_kl(p, q, lower=lower, upper=upper, top=4 if part.features == "topk" else 11)
            assert abs(found.loss[n].item() - expected) < 1e-6 * max(1.0, expected)


def the_thresholds_give_the_student_no_gradient() -> None:
    """∂loss/∂log q sums to −1 a token, the clipped teacher's mass, unless the bounds follow the student."""
    for part in (DACKL(top=4), DACKL(features="full")):
        scores = _scores()
        term = part.build(vocabulary_size=11, generator=torch.Generator()).double()
        term.network = _Told()
        (gradient,) = torch.autograd.grad(term(scores).sum(), scores.student_logp)
        assert torch.allclose(gradient.sum(-1), -torch.ones(4, dtype=torch.float64), atol=1e-9)


def no_pair_leaves_its_span_or_its_row() -> None:
    """Eq. 9-10: both tokens of a pair stand in one span of one row."""
    spans = [[(1, 3), (3, 6)], [(2, 4)], [(1, 3)]]
    lengths = [6, 4, 3]
    flags = [[False, *[True] * (length - 1)] for length in lengths]
    batch = pack_rows(
        [[7] * length for length in lengths], flags, origin=["student"] * 3, keys=[(0,), (1,), (2,)], pad_id=0
    )
    where = scored_tokens(batch)
    places = list(zip(where.rows.tolist(), where.positions.tolist(), strict=True))
    found = [places[n] for n in span_pairs(batch, spans).first.tolist()]
    assert found == [(0, 1), (0, 3), (0, 4), (1, 2), (2, 1)]


def _packed(items: tuple[Item, ...], *, origin: str, pad_id: int) -> Sequences:
    """The items' own rows, under any origin."""
    return pack_rows(
        [row.tokens for _, row in items],
        [row.is_response for _, row in items],
        origin=[origin] * len(items),
        keys=[key for key, _ in items],
        pad_id=pad_id,
    )


def revised_rows_are_not_learned_as_references() -> None:
    """Eq. 2 inside Eq. 11: the supervised term reads the corpus's responses, whatever the student has drawn."""
    pair, items = exact_pair(), toy_items()
    references = _packed(items, origin="reference", pad_id=pair.pad_id)
    own = pack_rows(
        [[*row.prompt, 65, 66, 67] for _, row in items],
        [[*[False] * len(row.prompt), True, True, True] for _, row in items],
        origin=["revised"] * len(items),
        keys=[key for key, _ in items],
        pad_id=pair.pad_id,
    )
    objective = Objective.of(Likelihood(), scales={"token": 1.0, "supervised": 1.0})
    found = one_step(pair, objective, drawn=own, micro_rows=2, items=items)
    alone = one_step(pair, Objective.of(Likelihood(), scales={"token": 1.0}), drawn=references, micro_rows=2)
    assert abs(found.totals["supervised"] - alone.totals["token"]) < 1e-9


def a_span_term_reads_the_spans_of_what_is_learned() -> None:
    """A step's span term is Eq. 10 over the drawn rows, in any micro-batches."""
    pair, items = exact_pair(), toy_items()
    rows = _packed(items, origin="student", pad_id=pair.pad_id)
    letters = TokenPieces(
        pieces=tuple(bytes([byte]) if byte < 256 else b"" for byte in range(261)), special=frozenset(range(256, 261))
    )
    finder = SpanFinder(lambda text: tuple((i, i + 2) for i in range(0, len(text) - 1, 3)), letters)
    objective = Objective.of(Likelihood(), span=Correlation(), scales={"token": 1.0, "span": 1.0})
    found = [one_step(pair, objective, drawn=rows, micro_rows=size, finder=finder).totals["span"] for size in (1, 2, 5)]
    total, count = 0.0, 0
    for tokens, flags in zip(rows.tokens.tolist(), rows.is_response.tolist(), strict=True):
        first = flags.index(True)
        end = len(flags) - flags[::-1].index(True)
        with torch.no_grad():
            s, t = (
                model(torch.tensor([tokens[:end]])).logits[0].softmax(-1)[first - 1 : end - 1].tolist()
                for model in (pair.student, pair.teacher)
            )
        spans = finder.spans(tokens[first:end])
        total += mgsr.span_loss(s, t, spans) * len(spans)
        count += len(spans)
    assert count > 5
    for value in found:
        assert abs(value - total / count) < 1e-5 * total / count


def collocations_are_those_of_the_formula() -> None:
    """NPMI of neighbours inside of a stretch, by counts alone."""
    stretches = [[1, 2, 3], [1, 2], [3, 1, 2, 2], [3], [2, 3, 1]]
    expected = {pair: value for pair, (_, value) in plain_spans.npmi(stretches).items() if value >= 0.1}
    found = Learned(threshold=0.1, min_count=1).fit(stretches).npmi
    assert found.keys() == expected.keys()
    assert all(abs(value - expected[pair]) < 1e-12 for pair, value in found.items())


def no_span_of_tokens_holds_a_special_one() -> None:
    """Windows and whole responses end where a special token stands."""
    plain = TokenPieces(pieces=(), special=frozenset({0}))
    assert SpanFinder(Whole(), plain).spans([5, 6, 0, 7, 8, 9, 0]) == ((0, 2), (3, 6))
    assert SpanFinder(Window(size=2), plain).spans([5, 6, 7, 0, 8, 9]) == ((0, 2), (4, 6))


CHECKS = (
    collocations_are_those_of_the_formula,
    no_span_of_tokens_holds_a_special_one,
    the_largest_mismatch_is_corrected,
    everything_before_the_correction_is_kept,
    the_error_is_found_by_the_students_surprise,
    the_token_that_later_ones_read_has_the_attention,
    a_loop_begins_at_its_second_turn_in_its_own_row,
    a_random_error_is_drawn_anew_each_round,
    the_clip_is_that_of_the_equations,
    the_thresholds_give_the_student_no_gradient,
    no_pair_leaves_its_span_or_its_row,
    revised_rows_are_not_learned_as_references,
    a_span_term_reads_the_spans_of_what_is_learned,
)
