"""Rollouts: waiting rows in the seats of finished ones against groups, and against `transformers.generate`.

    python benchmarks/rollouts.py                           # 64 prompts, 16 seats, 128 new tokens, 30 and 15 layers
    python benchmarks/rollouts.py --data dolly/test.jsonl   # the prompts of 64 rows of a file
    python benchmarks/rollouts.py --draws 5                 # an evaluation with five seeds: `turns` and `loop`, `stops`
    python benchmarks/rollouts.py --quick    # 12 prompts, 4 seats, 8 new tokens, 15 layers; its ratios mean little
    python benchmarks/rollouts.py --count    # a tiny random model: only what is counted, in seconds

SmolLM2-135M-Instruct and a student of 15 of its layers (no training: layers are dropped) answer prompts of the starter
corpus, each with its own length. All sides decode at most `seats` rows at a time and sample from the whole vocabulary
at temperature 1: `turns` is Limbeck's `extend_in_turn`, as evaluation calls it, `groups` its `extend` for one group of
like prompts after the other, `generate` is transformers' on the same groups, `loop` transformers' on groups as the rows
come: the plain loop of an evaluation. The first two draw from the same noise. `no stops`: every row gets all its new
tokens. `stops`: a row ends with the model's end-of-turn token; only tokens up to and including it count. The sides take
turns; each turn has other random numbers, the same in every run; tokens per second are all tokens over all seconds.

With `--draws`, each prompt is answered so many times: `turns` as an evaluation with so many seeds does, unit by unit,
in which a prompt is read once; `loop` goes over all prompts once a draw.

Counted, not timed: `forwards`; `idle`, the share of seats in them that drew nothing that counts, 1 − tokens / (forwards
· seats); and the share of rows that stopped before their limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import record
import torch
from machine import describe
from transformers import GenerationConfig, PreTrainedModel

from limbeck.data.corpora import load_corpus
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import Extension, extend, extend_in_turn
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import fetch
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer, split_rows
from limbeck.models.shrinking import measured_layers, shrink
from limbeck.models.turns import UNIT_TURNS
from limbeck.seeds import RowNoise, Seeds
from limbeck.testing import tiny_pair
from limbeck.types import Sequences, pack_rows

MODEL = "smollm2-135m-instruct"
TARGET = 1.0


@dataclass(frozen=True)
class Drawn:
    """New tokens of all rows, rows that ended with a stop token, forwards, and the time it took."""

    tokens: int
    stopped: int
    forwards: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked: rows, seats, new tokens, stop tokens and the root of the noise."""

    prompts: Sequence[tuple[int, ...]]
    seats: int
    new: int
    stops: frozenset[int] = frozenset()
    seed: int = 0
    draws: int = 1


class Counting(CausalDecoder):
    """Counts its forwards."""

    forwards = 0

    def next_logp(self, tokens: Any, **rest: Any) -> Any:
        self.forwards += 1
        return super().next_logp(tokens, **rest)


def read_prompts(corpus: str, count: int) -> tuple[tuple[int, ...], ...]:
    tokenizer = load_tokenizer(str(fetch(MODEL)))
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=192, max_length=512, long_prompt="cut")
    rows = encoder.rows(load_corpus(corpus, split="test").examples[:count])
    return tuple(row.prompt for row in rows)


def _packed(pair: Pair, work: Work, places: Sequence[int] | None = None) -> Sequences:
    """Each prompt, of these places, as many times as it is answered."""
    chosen = range(len(work.prompts)) if places is None else places
    keys = [(index, draw) for index in chosen for draw in range(work.draws)]
    rows = [work.prompts[index] for index, _ in keys]
    flags = [[False] * len(row) for row in rows]
    return pack_rows(rows, flags, origin=["prompt"] * len(keys), keys=keys, pad_id=pair.pad_id)


def _units(work: Work) -> list[list[int]]:
    """The prompts of each unit of an evaluation's file, the longest first."""
    order = sorted(range(len(work.prompts)), key=lambda place: (-len(work.prompts[place]), place))
    size = max(1, UNIT_TURNS * work.seats // work.draws)
    return [order[first : first + size] for first in range(0, len(order), size)]


def _options(rows: Sequences, work: Work) -> dict[str, Any]:
    return {
        "start": rows.lengths,
        "limit": rows.lengths + work.new,
        "rows": torch.ones(len(rows), dtype=torch.bool),
        "sampling": Sampling(stop_ids=work.stops),
        "noise": RowNoise([Seeds(work.seed).child("draw", *key) for key in rows.keys]),
    }


def _drawn(found: Sequence[Extension], decoder: Counting, began: float) -> Drawn:
    seconds = time.perf_counter() - began
    tokens = sum(int(each.sequences.is_response.sum()) for each in found)
    return Drawn(tokens, sum(int(each.stopped.sum()) for each in found), decoder.forwards, seconds)


def turns(pair: Pair, work: Work) -> Drawn:
    decoder = Counting(Scorer.of(pair.student, vocabulary=pair.vocabulary))
    units = [_packed(pair, work, places) for places in _units(work)]
    began = time.perf_counter()
    found = [
        extend_in_turn(decoder, rows, seats=work.seats, copies=work.draws, **_options(rows, work)) for rows in units
    ]
    return _drawn(found, decoder, began)


def groups(pair: Pair, work: Work) -> Drawn:
    rows, decoder = _packed(pair, work), Counting(Scorer.of(pair.student, vocabulary=pair.vocabulary))
    began = time.perf_counter()
    parts = [rows.rows(group) for group in split_rows(rows, work.seats)]
    return _drawn([extend(decoder, part, **_options(part, work)) for part in parts], decoder, began)


def generate(pair: Pair, work: Work, *, is_sorted: bool = True) -> Drawn:
    # The model's own settings would fill what is left open here.
    pair.student.generation_config.eos_token_id = None
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=work.new,
        eos_token_id=sorted(work.stops) or None,
        pad_token_id=pair.pad_id,
    )
    torch.manual_seed(work.seed)
    rows, count, stopped, forwards = _packed(pair, work), 0, 0, 0
    began = time.perf_counter()
    places = list(range(len(work.prompts)))
    as_given = [places[first : first + work.seats] for first in range(0, len(places), work.seats)]
    for group in split_rows(rows, work.seats) if is_sorted else as_given:
        prompts = [work.prompts[row] for row in group]
        width = max(len(prompt) for prompt in prompts)
        tokens = torch.full((len(prompts), width), pair.pad_id)
        attended = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :] = torch.tensor(prompt)
            attended[row, width - len(prompt) :] = 1
        with torch.no_grad():
            drawn = pair.student.generate(tokens, attention_mask=attended, generation_config=config)[:, width:]
        forwards += drawn.shape[1]
        for row in drawn.tolist():
            end = next((place for place, token in enumerate(row) if token in work.stops), None)
            count += len(row) if end is None else end + 1
            stopped += end is not None
    return Drawn(count, stopped, forwards, time.perf_counter() - began)


def loop(pair: Pair, work: Work) -> Drawn:
    once = [
        generate(pair, replace(work, draws=1, seed=work.seed * work.draws + draw), is_sorted=False)
        for draw in range(work.draws)
    ]
    return Drawn(*(sum(getattr(each, field.name) for each in once) for field in fields(Drawn)))


SIDES: dict[str, Callable[[Pair, Work], Drawn]] = {
    "turns": turns,
    "groups": groups,
    "generate": generate,
    "loop": loop,
}


def compare(name: str, pair: Pair, work: Work, *, repeats: int, judged: bool, timed: bool) -> dict[str, float]:
    """The speed of `turns` over that of each other side, by model and kind."""
    rows, ratios = len(work.prompts) * work.draws, dict[str, float]()
    kinds = {"no stops": frozenset[int](), "stops": pair.stop_ids}
    sides = SIDES if work.draws == 1 else {side: SIDES[side] for side in ("turns", "loop")}
    for kind, stops in kinds.items() if work.draws == 1 else [("stops", pair.stop_ids)]:
        found: dict[str, list[Drawn]] = {side: [] for side in sides}
        for seed in range(repeats):
            for side, draw in sides.items():
                found[side].append(draw(pair, replace(work, stops=stops, seed=seed)))
        if not stops and any(each.tokens != work.new * rows for own in found.values() for each in own):
            raise SystemExit("a row ended although nothing stops")
        speeds = {side: sum(t.tokens for t in own) / sum(t.seconds for t in own) for side, own in found.items()}
        for side, own in found.items():
            forwards, tokens = sum(each.forwards for each in own), sum(each.tokens for each in own)
            speed = (
                f"{speeds[side]:7.1f} tokens/s   turns / it {speeds['turns'] / speeds[side]:5.2f}   " if timed else ""
            )
            idle = 1 - tokens / (forwards * work.seats)
            print(
                f"{name}, {kind:<8}  {side:<8}  {speed}forwards {forwards:6,}   idle {idle:4.0%}"
                f"   rows that stopped: {sum(each.stopped for each in own) / (repeats * rows):.0%}"
            )
        ratios |= {f"{name}.{kind}.{side}": speeds["turns"] / speed for side, speed in speeds.items()}
        ratios[f"{name}.{kind}.stopped"] = sum(each.stopped for each in found["turns"]) / (repeats * rows)
        if judged and work.draws == 1:
            ratio = speeds["turns"] / speeds["generate"]
            print(f"  target {TARGET:.1f} times generate: {'met' if ratio >= TARGET else 'MISSED'}")
    return ratios


def make_pair(model: PreTrainedModel) -> Pair:
    return Pair.load(teacher=None, student=model, tokenizer=load_tokenizer(str(fetch(MODEL))))


def count_only(*, draws: int) -> None:
    """Prompts of 3 to 40 tokens for a random model whose rows stop after some 40 tokens."""
    pair = tiny_pair()
    seeds = Seeds(0).child("prompts").generator()
    prompts = [(257, *seeds.integers(32, 127, size=size).tolist()) for size in seeds.integers(2, 40, size=64)]
    compare(
        "tiny random model",
        pair,
        Work(prompts=prompts, seats=16, new=128, draws=draws),
        repeats=1,
        judged=False,
        timed=False,
    )


def main() -> None:
    parser = record.parser(__doc__, quick="small sizes")
    parser.add_argument("--count", action="store_true", help="a tiny random model, nothing timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", default="starter", help="a corpus or a file")
    parser.add_argument("--draws", type=int, default=1, help="answers to each prompt")
    parser.add_argument("--layers", type=int, nargs="+", default=[30, 15], choices=[30, 15])
    arguments = parser.parse_args()
    if arguments.count:
        return count_only(draws=arguments.draws)
    rows, seats, new, repeats = (12, 4, 8, 1) if arguments.quick else (64, 16, 128, arguments.repeats)
    print(describe())
    work = Work(prompts=read_prompts(arguments.data, rows), seats=seats, new=new, draws=arguments.draws)
    lengths = [len(prompt) for prompt in work.prompts]
    print(
        f"{len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens, {seats} seats, {new} new tokens, "
        f"{work.draws} draws, {repeats} turns, float32"
    )
    whole = load_model(str(fetch(MODEL)), device="cpu").eval()
    small = shrink(whole, layers=measured_layers(MODEL, 15))
    layers, ratios = [15] if arguments.quick else arguments.layers, dict[str, float]()
    for count in layers:
        name, model = f"{count} layers", {30: whole, 15: small}[count]
        pair = make_pair(model)
        for draw in SIDES.values():
            draw(pair, Work(prompts=work.prompts[:2], seats=2, new=2, stops=pair.stop_ids))
        ratios |= compare(name, pair, work, repeats=repeats, judged=not arguments.quick, timed=True)
    sizes = {"rows": rows, "draws": work.draws, "seats": seats, "new_tokens": new, "repeats": repeats, "layers": layers}
    record.publish("rollouts", arguments, sizes=sizes, findings=ratios, variant="draws" if work.draws > 1 else "")
    return None


if __name__ == "__main__":
    main()
