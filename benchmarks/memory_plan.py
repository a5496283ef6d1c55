"""The peak of memory that `limbeck plan` predicts, beside the one that the run of the same recipe then has.

Each run is a process of its own, and the kernel says the most memory that it held (VmHWM). Both sides have the same
recipe, rows and thread count. Target: the prediction within 15 % of the measurement. `--quick` takes random models of
10 million parameters in place of SmolLM2-135M-Instruct and 15 of its layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import torch

_TARGET = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--methods", default="kd,gkd,mgsr")
    given = parser.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        for base in given.methods.split(","):
            recipe = _recipe(Path(scratch), base, quick=given.quick, steps=given.steps)
            path = Path(scratch) / f"{base}.json"
            path.write_text(json.dumps(recipe))
            predicted, measured = (_in_process(side, path) for side in ("plan", "train"))
            off = predicted / measured - 1
            said = "met" if abs(off) <= _TARGET else "MISSED"
            print(f"{base}: predicted {_mib(predicted)}, measured {_mib(measured)}: {off:+.1%} (target 15 %, {said})")


def _recipe(scratch: Path, base: str, *, quick: bool, steps: int) -> dict[str, object]:
    from limbeck.models import load_model, load_tokenizer, save_student, shrink

    student = scratch / "student"
    if quick:
        teacher = str(scratch / "teacher")
        for folder, layers, seed in ((Path(teacher), 8, 1), (student, 6, 2)):
            _save_random(folder, layers=layers, seed=seed)
    else:
        teacher = "smollm2-135m-instruct"
        if not student.exists():
            save_student(shrink(load_model(teacher, device="cpu"), layers=15), load_tokenizer(teacher), student)
    return {
        "method": {"base": base},
        "models": {"teacher": teacher, "student": str(student), "device": "cpu"},
        "data": {"corpus": "starter", "max_prompt": 512, "max_length": 768, "long_prompt": "cut", "max_rows": 64},
        "sampling": {"max_new_tokens": 64},
        "train": {"steps": steps, "batch_rows": 8, "micro_rows": 4},
        "validate": {"every": steps, "rows": 8},
        "run": str(scratch / f"run-{base}"),
    }


def _save_random(folder: Path, *, layers: int, seed: int) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    from limbeck.testing import byte_tokenizer

    if folder.exists():
        return
    sizes = {
        "hidden_size": 384,
        "num_hidden_layers": layers,
        "intermediate_size": 1024,
        "max_position_embeddings": 1024,
    }
    ids = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=264, num_attention_heads=6, num_key_value_heads=2, **sizes, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def _in_process(side: str, recipe: Path) -> int:
    command = [sys.executable, __file__, "--child", side, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return int(done.stdout.splitlines()[-1])


def _child(side: str, recipe: Path) -> int:
    import limbeck
    from limbeck.preflight import plan

    values = json.loads(recipe.read_text())
    if side == "plan":
        return plan(values).peak
    limbeck.train(values)
    return machine.peak_bytes()


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(_child(sys.argv[2], Path(sys.argv[3])))
    else:
        main()
