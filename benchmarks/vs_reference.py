"""One epoch of GKD: Limbeck against a plain loop, written from the papers without a thought for speed.

    python benchmarks/vs_reference.py --data dolly/train.jsonl
    python benchmarks/vs_reference.py --quick                    # 8 rows, random models; its ratios mean nothing

The plain loop is what one writes first (GKD, arXiv 2306.13649, Algorithm 1 and Eq. 1): pad the rows, let
`transformers.generate` draw, form all logits of both models, drop the last position, take JSD in torch functions, mask,
average over tokens, step. What is equal on both sides, what is counted and what is left out: gkd_epoch.py.
"""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

from gkd_epoch import Epoch, Settings, compare, limbeck, options
from machine import resident_bytes

PLAIN = "plain loop"
SIDES = {"fixed": {PLAIN: "plain"}, "drawn": {PLAIN: "plain"}}


def padded(rows: list[list[int]], *, left: bool, fill: int) -> Any:
    import torch

    width = max(map(len, rows))
    lines = [[fill] * (width - len(row)) + row if left else row + [fill] * (width - len(row)) for row in rows]
    return torch.tensor(lines)


def generated(student: Any, prompts: list[list[int]], *, settings: Settings, pad: int, stops: set[int]) -> Any:
    """The prompts with what the student writes, and which tokens are its own, its stop token included."""
    import torch

    tokens = padded(prompts, left=True, fill=pad)
    attended = padded([[1] * len(prompt) for prompt in prompts], left=True, fill=0)
    with torch.no_grad():
        whole = student.generate(
            tokens,
            attention_mask=attended,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=settings.most_tokens,
            eos_token_id=sorted(stops),
            pad_token_id=pad,
        )
    own = torch.zeros_like(whole, dtype=torch.bool)
    own[:, tokens.shape[1] :] = True
    ends = torch.isin(whole, torch.tensor(sorted(stops))) & own
    own &= ends.cumsum(dim=1) - ends.long() == 0
    attended = torch.cat([attended.bool(), own[:, tokens.shape[1] :]], dim=1)
    return whole, attended, own


def jsd(student: Any, teacher: Any, *, beta: float) -> Any:
    """beta · KL(t‖m) + (1 − beta) · KL(s‖m), m = beta·t + (1 − beta)·s, of log-probabilities."""
    import torch
    from torch.nn.functional import kl_div

    mixed = torch.logsumexp(torch.stack([teacher + math.log(beta), student + math.log(1 - beta)]), dim=0)
    from_teacher = kl_div(mixed, teacher, reduction="none", log_target=True).sum(dim=-1)
    from_student = kl_div(mixed, student, reduction="none", log_target=True).sum(dim=-1)
    return beta * from_teacher + (1 - beta) * from_student


def plain(settings: Settings, *, drawn: bool) -> Epoch:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    idle = resident_bytes()
    dtypes = {settings.student: torch.float32, settings.teacher: torch.bfloat16 if settings.bf16 else torch.float32}
    student, teacher = (AutoModelForCausalLM.from_pretrained(name, dtype=dtypes[name]) for name in dtypes)
    tokenizer = AutoTokenizer.from_pretrained(settings.student)
    rows = json.loads(Path(settings.folder, "encoded.json").read_text())
    random.Random(0).shuffle(rows)
    steps = len(rows) // settings.batch_rows
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    torch.manual_seed(0)
    counts: list[int] = []
    products = torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16)
    began = time.perf_counter()
    for step in range(steps):
        part = rows[step * settings.batch_rows : (step + 1) * settings.batch_rows]
        if drawn:
            prompts = [row["input_ids"][: row["completion_mask"].index(1)] for row in part]
            pad, stops = tokenizer.pad_token_id, {tokenizer.eos_token_id}
            student.eval()
            with products:
                tokens, attended, own = generated(student, prompts, settings=settings, pad=pad, stops=stops)
        else:
            tokens = padded([row["input_ids"] for row in part], left=False, fill=0)
            attended = padded([[1] * len(row["input_ids"]) for row in part], left=False, fill=0).bool()
            own = padded([row["completion_mask"] for row in part], left=False, fill=0).bool()
        student.train()
        places = (attended.cumsum(dim=1) - 1).clamp(min=0)
        inputs = {"input_ids": tokens, "attention_mask": attended.long(), "position_ids": places}
        with torch.no_grad():
            target = teacher(**inputs).logits[:, :-1].float().log_softmax(dim=-1)
        with products:
            logits = student(**inputs).logits[:, :-1]
        logp = logits.float().log_softmax(dim=-1)
        mask = own[:, 1:]
        loss = (jsd(logp, target, beta=settings.beta) * mask).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), settings.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        counts += mask.sum(dim=1).tolist()
    seconds = time.perf_counter() - began
    return Epoch(sum(counts), seconds, sum(count < settings.most_tokens for count in counts) / len(counts), idle)


def main() -> None:
    compare(Path(__file__), options(__doc__).parse_args(), runners={"limbeck": limbeck, PLAIN: plain}, sides=SIDES)


if __name__ == "__main__":
    main()
