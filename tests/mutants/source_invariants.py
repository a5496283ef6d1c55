"""What must hold of replayed and teacher-written rows whatever the code looks like; see `invariants.py`."""

from __future__ import annotations

from limbeck.revision import SCRG
from limbeck.seeds import Seeds
from limbeck.sequences import Adaptive, Constant, Ground, Replay
from limbeck.sequences.answering import Answer
from limbeck.testing import ScriptedModel, byte_tokenizer, peaked, scripted_rollouts, toy_examples
from limbeck.training.sourcing import _OwnTokens
from limbeck.types import Sequences, pack_rows
from mutants.rig import encoder_of

V = 5


def _rows(step: int, *, origin: str = "revised") -> Sequences:
    rows = [[0, 1, step, 1], [0, 1, step, 2, 1]]
    flags = [[False, *[True] * (len(row) - 1)] for row in rows]
    return pack_rows(rows, flags, origin=[origin] * 2, keys=[(0, 2 * step + place) for place in range(2)], pad_id=0)


def replayed_rows_are_not_revised_again() -> None:
    """The teacher disagrees with every token, and nothing is touched."""
    source = Replay(schedule=Constant(1.0), capacity=2).build(Ground(steps=2, batch_rows=2, pad_id=0))
    source.keep(_rows(1), step=1, seeds=Seeds(0))
    student, teacher = (
        ScriptedModel(lambda prefix, token=token: peaked(token, share=0.9, vocab_size=V), vocab_size=V)
        for token in (1, 3)
    )
    rollouts = scripted_rollouts(student, max_new_tokens=4, temperature=0.0)
    drawn = source.draw((), rollouts=rollouts, step=2)
    revised = SCRG(greedy=True).revise(drawn, rollouts=rollouts, student=student, teacher=teacher, chunk=3)
    assert revised.corrections == ()
    assert revised.sequences.tokens.tolist() == _rows(1).tokens.tolist()


def all_ranks_take_the_same_turn() -> None:
    """The coin is the step's: a rank that drew while another replays would wait for it forever."""
    replay = Replay(schedule=Constant(0.5), capacity=8)
    ranks = [replay.build(Ground(steps=60, batch_rows=2, pad_id=0, rank=rank, ranks=2)) for rank in (0, 1)]
    turns = [[source.turn(step, seeds=Seeds(0)) for step in range(1, 61)] for source in ranks]
    assert turns[0] == turns[1]
    assert set(turns[0]) == {"fresh", "fixed"}


def only_a_rise_of_the_loss_moves_the_threshold() -> None:
    """Against the loss of the last rise, or of the start: a loss that falls and comes back has not risen."""
    source = Replay(schedule=Adaptive(rise=0.1)).build(Ground(steps=60, batch_rows=2, pad_id=0))
    moved = []
    for loss in (2.0, 1.0, 1.5, 1.95, 2.05, 2.2, 2.25):
        source.observe(loss)
        moved.append(source.thresholds(1)[0])
    assert moved == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1]


def the_oldest_rows_leave_the_buffer() -> None:
    """Of three steps the last two are left, and what is left comes back from a checkpoint."""
    replay, ground = Replay(schedule=Constant(1.0), capacity=4), Ground(steps=60, batch_rows=2, pad_id=0)
    source, again = replay.build(ground), replay.build(ground)
    for step in (1, 2, 3):
        source.keep(_rows(step), step=step, seeds=Seeds(0))
    again.restore(source.state())
    again.keep(_rows(4), step=4, seeds=Seeds(0))
    assert source.state()["keys"].tolist() == [[0, 4], [0, 5], [0, 6], [0, 7]]
    assert again.state()["keys"].tolist() == [[0, 6], [0, 7], [0, 8], [0, 9]]


def a_cut_answer_teaches_no_end() -> None:
    """A teacher that was stopped by the limit has not said that the answer ends there."""
    (example,) = toy_examples(1)
    encoder = encoder_of(byte_tokenizer())
    row = encoder.row(example)
    assert row is not None
    reading = _OwnTokens(teacher=encoder, student=encoder, asked={row.prompt: example})
    cut = reading.learned(row, Answer(prompt="", text="ab", tokens=(97, 98), stopped=False))
    whole = reading.learned(row, Answer(prompt="", text="ab", tokens=(97, 98, 260), stopped=True))
    assert [cut.tokens[len(row.prompt) :], whole.tokens[len(row.prompt) :]] == [(97, 98), (97, 98, 260)]


CHECKS = (
    replayed_rows_are_not_revised_again,
    all_ranks_take_the_same_turn,
    only_a_rise_of_the_loss_moves_the_threshold,
    the_oldest_rows_leave_the_buffer,
    a_cut_answer_teaches_no_end,
)
