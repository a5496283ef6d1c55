"""A run with `models.lora` is LoRA: a few lines of torch and peft give the same weights and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.models.bars import without_bars
from limbeck.models.pair import Pair
from limbeck.training.step import take_items
from reference import equations
from training_kit import ROWS, Models, in_float64, metrics, opened, recipe, start, tensors

STEPS, RATE, DECAY = 3, 2e-3, 0.05


def _settings(models: Models, base: str) -> dict[str, Any]:
    train = {"steps": STEPS, "learning_rate": RATE, "weight_decay": DECAY, "clip_norm": None}
    lora = {"rank": 3, "alpha": 6.0}
    return recipe(models, base, models={"lora": lora}, train=train, validate={"every": None})


def _adapted(models: Models, seed: int) -> Any:
    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(models.student)
    config = pytest.importorskip("peft").LoraConfig(
        r=3, lora_alpha=6.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    return model.double().train()


@pytest.mark.parametrize("base", ["sft", "kd"])
def test_three_steps(base: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(models, base)
    # The rows alone are taken from Limbeck.
    session = opened(settings, tmp_path / "rows")
    rows = [[row for _, row in take_items(session, step, 6 * step)[0]] for step in range(STEPS)]
    width = session.pair.vocabulary.size

    model = _adapted(models, seed=0)
    with without_bars():
        teacher = AutoModelForCausalLM.from_pretrained(models.teacher).double()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    losses = []
    for step in range(STEPS):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for row in rows[step]:
            tokens = torch.tensor([row.tokens])
            own = model(tokens).logits[0, :-1, :width].log_softmax(-1)
            with torch.no_grad():
                other = teacher(tokens).logits[0, :-1, :width].log_softmax(-1)
            for place in range(len(row.prompt), len(row.tokens)):
                here = own[place - 1]
                if base == "sft":
                    total = total - here[row.tokens[place]]
                else:
                    total = total + (other[place - 1].exp() * (other[place - 1] - here)).sum()
                count += 1
        optimizer.zero_grad()
        (total / count).backward()
        for group in optimizer.param_groups:
            group["lr"] = equations.learning_rate(step, schedule="cosine", peak=RATE, steps=STEPS)
        optimizer.step()
        losses.append(float((total / count).detach()))

    in_float64(monkeypatch)
    start(settings, tmp_path / "run", rows=ROWS)
    assert [row["loss"] for row in metrics(tmp_path / "run")] == pytest.approx(losses, abs=1e-6)
    found = {name.removeprefix("weight student."): value for name, value in tensors(tmp_path / "run").items()}
    by_hand = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert len(by_hand) == 28
    for name, value in by_hand.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-6, msg=name)
    assert any(float(value.detach().abs().max()) > 1e-4 for name, value in by_hand.items() if "lora_B" in name)


# peft asks transformers for a property that is about to be renamed.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_saved_student_is_the_trained_one(models: Models, tmp_path: Path) -> None:
    """LoRA is merged into a plain folder, and the adapter lies beside it."""
    run = start(_settings(models, "sft"), tmp_path / "run")
    plain = run.student()
    pair = Pair.load(teacher=None, student=models.student, device="cpu")
    peft = pytest.importorskip("peft")
    adapted = peft.PeftModel.from_pretrained(pair.student, run.directory / "student" / "adapter").eval()
    tokens = torch.tensor([[257, 259, 117, 58, 104, 105, 260, 259, 97, 58]])
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens).logits, adapted(tokens).logits, rtol=1e-4, atol=1e-5)
