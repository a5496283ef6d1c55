"""How many parameters a model has, without loading it: from its files, from its name, or from what it is cut from."""

from __future__ import annotations

import math
import re
from pathlib import Path

from limbeck.errors import ModelError
from limbeck.files import read_json

# "Llama-2-13b-hf", "Qwen2.5-0.5B", "open_llama_7b_v2"; these two say no number.
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)([bm])(?![a-z\d])", re.IGNORECASE)
_SIZES = {"gpt2": 124_439_808, "gpt2-xl": 1_557_611_200}


def counted_in(folder: Path) -> int | None:
    """Parameters of a model folder, from the headers of its files."""
    from safetensors import safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as opened:
            count += sum(math.prod(opened.get_slice(name).get_shape()) for name in list(opened.keys()))
    return count or None


def cut(whole: int, model: str, layers: object) -> int:
    """About what is left: embeddings stay, layers weigh alike; SmolLM2-135M has 30 of 3.54 million parameters."""
    left = layers if isinstance(layers, int) else len(layers) if isinstance(layers, list) else 0
    config = Path(model) / "config.json"
    if config.is_file():
        total = int(read_json(config, error=ModelError).get("num_hidden_layers", left) or left)
        return round(whole * (0.2 + 0.8 * left / max(total, 1)))
    return whole - (30 - left) * 3_540_096


def named_size(name: str) -> int | None:
    """Parameters of a hub model as its name says them.

    >>> named_size("meta-llama/Llama-2-13b-hf"), named_size("Qwen/Qwen2.5-0.5B"), named_size("openai-community/gpt2")
    (13000000000, 500000000, 124439808)
    """
    said = _SIZE.findall(name.rpartition("/")[2])
    if not said:
        return _SIZES.get(name.rpartition("/")[2])
    number, unit = said[-1]
    return round(float(number) * (1e9 if unit in "bB" else 1e6))


def width_of(parameters: int) -> int:
    """About how many numbers a hidden state has: D of a model of D / 128 layers with 12 · D² parameters each.

    >>> width_of(13_000_000_000), width_of(7_000_000_000), width_of(0)     # LLaMA-2 has 5,120 and 4,096
    (5176, 4211, 0)
    """
    return round(math.cbrt(parameters * 128 / 12))
