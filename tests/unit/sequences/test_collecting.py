"""Rollouts of student and teacher: what is drawn, what is known of it, and the order in which it is learned from."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.models.decoders import CausalDecoder, TeacherDecoder
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.records import EncodedRow
from limbeck.seeds import Seeds
from limbeck.sequences import SOURCES, CollectedRollouts, Collecting, Rollouts, Source, Student
from limbeck.sequences.source import Item
from limbeck.testing import ScriptedModel, random_script, scripted_rollouts, tiny_pair
from limbeck.training import checkpoint
from limbeck.types import Sequences
from reference.equations import mixture


def _items(count: int) -> tuple[Item, ...]:
    """Prompts of one to three tokens of a vocabulary of five."""
    prompts = [(1,) * (index % 3) + (index % 5,) for index in range(count)]
    return tuple(((0, index), _row(index, prompt)) for index, prompt in enumerate(prompts))


def _row(index: int, prompt: tuple[int, ...]) -> EncodedRow:
    flags = (*[False] * len(prompt), True)
    return EncodedRow(id=str(index), prompt=prompt, tokens=(*prompt, 4), is_response=flags)


STUDENT, TEACHER = random_script(1, vocab_size=5), random_script(2, vocab_size=5)


def _scripted(**changes: object) -> Rollouts:
    student = ScriptedModel(STUDENT, vocab_size=5)
    rollouts = scripted_rollouts(student, max_new_tokens=6, stop_ids=frozenset({4}), group_rows=3)
    given: dict[str, Any] = {"teacher": ScriptedModel(TEACHER, vocab_size=5), **changes}
    return replace(rollouts, **given)


@pytest.fixture(scope="module")
def real() -> Rollouts:
    pair = tiny_pair()
    assert pair.teacher is not None
    return Rollouts(
        decoder=CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary)),
        teacher=TeacherDecoder(Scorer.of(pair.teacher, vocabulary=pair.vocabulary)),
        sampling=Sampling(stop_ids=pair.stop_ids, banned_ids=frozenset(pair.vocabulary.dropped_student)),
        max_new_tokens=6,
        max_length=64,
        group_rows=2,
        pad_id=pair.pad_id,
        seeds=Seeds(5),
        device=torch.device("cpu"),
    )


def test_it_is_a_source_that_collects() -> None:
    source = SOURCES["rollouts"]()
    assert isinstance(source, Source)
    assert isinstance(source, Collecting)
    assert not isinstance(Student(), Collecting)
    assert (source, source.repeats) == (CollectedRollouts(teacher_share=0.2, rows=256, epochs=4), 4)


def test_a_share_of_nothing_draws_the_students_own_tokens(real: Rollouts) -> None:
    own = Student().draw(_items(7), rollouts=real, step=1)
    found = CollectedRollouts(teacher_share=0.0, rows=7).draw(_items(7), rollouts=real, step=1)
    assert torch.equal(found.tokens, own.tokens)
    assert torch.equal(found.is_response, own.is_response)
    assert (found.origin, found.keys, found.limits) == (own.origin, own.keys, own.limits)
    assert found.experience is not None
    assert found.experience.student_logp is not None
    torch.testing.assert_close(found.experience.behaviour_logp, found.experience.student_logp, rtol=0, atol=1e-5)
    assert own.experience is None


def test_tokens_are_drawn_from_the_mixture_and_each_model_is_asked_about_them() -> None:
    source = CollectedRollouts(teacher_share=0.3, rows=60)
    drawn = source.draw(_items(60), rollouts=_scripted(), step=1)
    where, experience = scored_tokens(drawn), drawn.experience
    assert set(drawn.origin) == {"mixed"}
    assert experience is not None
    columns = experience.columns()
    assert columns.keys() == {"behaviour_logp", "student_logp", "teacher_logp"}
    for n, (row, position, token) in enumerate(
        zip(where.rows.tolist(), where.positions.tolist(), where.tokens.tolist(), strict=True)
    ):
        prefix = tuple(drawn.tokens[row, :position].tolist())
        p, q = TEACHER(prefix), STUDENT(prefix)
        expected = {"behaviour_logp": mixture(p, q, 0.3), "student_logp": q, "teacher_logp": p}
        for name, probabilities in expected.items():
            assert columns[name][n].item() == pytest.approx(math.log(probabilities[token]), abs=1e-6), (name, n)


def test_over_many_rows_first_tokens_follow_the_mixture() -> None:
    count, prompt = 4000, (3,)
    items = tuple(((0, number), _row(number, prompt)) for number in range(count))
    rollouts = _scripted(max_new_tokens=1, group_rows=500)
    drawn = CollectedRollouts(teacher_share=0.5, rows=count).draw(items, rollouts=rollouts, step=1)
    counts = Counter(drawn.tokens[:, 1].tolist())
    for token, probability in enumerate(mixture(TEACHER(prompt), STUDENT(prompt), 0.5)):
        assert abs(counts[token] / count - probability) < 4 * math.sqrt(probability * (1 - probability) / count) + 1e-9


def test_two_caches_of_real_models_grow_and_shrink_together(real: Rollouts) -> None:
    drawn = CollectedRollouts(teacher_share=0.3, rows=7).draw(_items(7), rollouts=replace(real, group_rows=7), step=1)
    experience = drawn.experience
    assert experience is not None
    assert experience.student_logp is not None
    assert experience.teacher_logp is not None
    expected = (0.3 * experience.teacher_logp.exp() + 0.7 * experience.student_logp.exp()).log()
    torch.testing.assert_close(experience.behaviour_logp, expected, rtol=0, atol=1e-4)


def test_what_is_known_of_a_row_does_not_depend_on_the_others(real: Rollouts) -> None:
    source = CollectedRollouts(rows=6)
    whole = source.draw(_items(6), rollouts=replace(real, group_rows=6), step=1)
    for row in (0, 4, 5):
        alone = source.draw(_items(6)[row : row + 1], rollouts=real, step=1)
        same = whole.rows([row])
        assert torch.equal(alone.tokens, same.tokens)
        assert alone.experience is not None
        assert same.experience is not None
        for name, column in alone.experience.columns().items():
            torch.testing.assert_close(column, same.experience.columns()[name], rtol=0, atol=1e-5, msg=name)


def test_a_temperature_is_part_of_what_was_drawn_from() -> None:
    rollouts = _scripted(sampling=Sampling(temperature=0.5, stop_ids=frozenset({4})))
    drawn = CollectedRollouts(teacher_share=0.3, rows=5).draw(_items(5), rollouts=rollouts, step=1)
    where = scored_tokens(drawn)
    row, position, token = int(where.rows[0]), int(where.positions[0]), int(where.tokens[0])
    prefix = tuple(drawn.tokens[row, :position].tolist())
    cooled = [value**2 for value in mixture(TEACHER(prefix), STUDENT(prefix), 0.3)]
    assert drawn.experience is not None
    found = drawn.experience.behaviour_logp[0].item()
    assert found == pytest.approx(math.log(cooled[token] / sum(cooled)), abs=1e-6)


def test_rows_without_room_for_a_response_have_no_experience_and_do_no_harm() -> None:
    drawn = CollectedRollouts(rows=6).draw(_items(6), rollouts=_scripted(max_length=2), step=1)
    assert drawn.experience is not None
    assert len(drawn.experience) == drawn.num_scored == 2
    nothing = CollectedRollouts(rows=6).draw(_items(6), rollouts=_scripted(max_length=1), step=1)
    assert nothing.num_scored == 0


def test_nothing_is_drawn_inside_a_collection_and_nothing_without_a_teacher() -> None:
    assert len(CollectedRollouts().draw((), rollouts=_scripted(), step=2)) == 0
    with pytest.raises(ConfigError, match=r"name one in models\.teacher"):
        CollectedRollouts().draw(_items(2), rollouts=_scripted(teacher=None), step=1)


# The collection.


def _steps(source: CollectedRollouts, *, first: int, count: int, collection: Sequences) -> list[tuple[int, list[int]]]:
    """(new rows, portion) of some steps, each kept."""
    found = []
    for step in range(first, first + count):
        new = source.prompts(step, batch_rows=4, seeds=Seeds(3))
        portion = source.portion(step, batch_rows=4, seeds=Seeds(3))
        source.keep(replace(collection) if new else source.collection() or collection, step=step, seeds=Seeds(3))
        found.append((new, portion))
    return found


def _collection(count: int = 12) -> Sequences:
    return CollectedRollouts(rows=count).draw(_items(count), rollouts=_scripted(), step=1)


def test_each_inner_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    source = CollectedRollouts(rows=12, epochs=2)
    steps = _steps(source, first=1, count=13, collection=_collection())
    assert [new for new, _ in steps] == [12, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 12]
    epochs = [[row for _, portion in steps[k : k + 3] for row in portion] for k in (0, 3, 6, 9)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    again = CollectedRollouts(rows=12, epochs=2)
    assert _steps(again, first=1, count=13, collection=_collection()) == steps


def test_a_step_that_is_taken_again_asks_for_the_same() -> None:
    source = CollectedRollouts(rows=8, epochs=1)
    for _ in range(3):
        assert source.prompts(1, batch_rows=4, seeds=Seeds(3)) == 8
    assert source.collection() is None
    assert source.state() == {"first": None}


@pytest.mark.parametrize("stopped_after", [1, 2, 5, 6])
def test_what_a_checkpoint_holds_goes_on_from_there(stopped_after: int, tmp_path: Path) -> None:
    collection = _collection()
    assert collection.experience is not None
    advantage = torch.arange(len(collection.experience), dtype=torch.float32)
    collection = replace(collection, experience=replace(collection.experience, advantage=advantage))
    source = CollectedRollouts(rows=12, epochs=2)
    steps = _steps(source, first=1, count=9, collection=collection)
    stopped = CollectedRollouts(rows=12, epochs=2)
    _steps(stopped, first=1, count=stopped_after, collection=collection)
    resumed = CollectedRollouts(rows=12, epochs=2)
    written = checkpoint.write(tmp_path, step=1, recipe="", weights={}, optimizer={}, state={"source": stopped.state()})
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (written / "source.safetensors").is_file()
    resumed.restore(found.state["source"])
    held = resumed.collection()
    assert held is not None
    assert held.experience is not None
    assert (held.origin, held.keys, held.limits) == (collection.origin, collection.keys, collection.limits)
    for name in ("tokens", "attended", "is_response"):
        assert torch.equal(getattr(held, name), getattr(collection, name))
    for name, column in collection.experience.columns().items():
        assert torch.equal(held.experience.columns()[name], column), name
    rest = _steps(resumed, first=stopped_after + 1, count=9 - stopped_after, collection=collection)
    assert rest == steps[stopped_after:]


def test_what_it_remembers_is_no_part_of_the_record() -> None:
    source = CollectedRollouts(rows=12)
    source.keep(_collection(), step=1, seeds=Seeds(0))
    assert source == CollectedRollouts(rows=12)
    assert replace(source).collection() is None
    assert "collection" not in repr(source)
    source.restore({"first": None})
    assert source.collection() is None
