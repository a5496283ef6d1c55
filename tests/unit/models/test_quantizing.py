from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.errors import ConfigError, ModelError
from limbeck.models import load_model, loading, quantizing
from limbeck.testing import save_tiny, tiny_model

CUDA = torch.device("cuda:1")


@pytest.fixture
def with_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: transformers asks for no more than its version to make a configuration."""
    find, version = importlib.util.find_spec, importlib.metadata.version
    monkeypatch.setattr(
        quantizing.importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else find(name)
    )
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.49.0" if name == "bitsandbytes" else version(name)
    )


def test_eight_bits(with_bitsandbytes: None) -> None:
    found = quantizing.quantized(8, dtype=torch.bfloat16, device=CUDA)
    config = found["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
    assert found["device_map"] == {"": CUDA}
    assert config.llm_int8_skip_modules is None, "transformers then leaves the head whole"


def test_four_bits_are_nf4_and_compute_in_the_dtype(with_bitsandbytes: None) -> None:
    config = quantizing.quantized(4, dtype=torch.bfloat16, device=CUDA)["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_bytes_a_weight_by_hand() -> None:
    # 64 weights: 32 bytes, one scale of a byte, and a 256th of four bytes.
    assert quantizing.BYTES_A_WEIGHT[4] * 64 == pytest.approx(32 + 1 + 4 / 256)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"bitsandbytes, and it is not installed\n.*limbeck\[gpu\]"):
        quantizing.quantized(8, dtype=torch.bfloat16, device=CUDA)


def test_without_the_device(tmp_path: Path) -> None:
    name = str(save_tiny(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"models\.teacher_bits is 4, but the teacher is on cpu"):
        load_model(name, device="cpu", frozen=True, bits=4)


def test_a_model_of_few_bits_is_loaded_where_it_is_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_bitsandbytes: None
) -> None:
    asked: dict[str, Any] = {}
    model = tiny_model()

    def stand_in(folder: Path, **settings: Any) -> Any:
        asked.update(settings)
        return model, {"missing_keys": []}

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", stand_in)
    monkeypatch.setattr(loading, "resolve_device", lambda name: CUDA)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    name = str(save_tiny(tmp_path / "model"))
    found = load_model(name, device="cuda:1", frozen=True, bits=4)
    assert found is model, "a quantised model cannot be moved, so it was not"
    assert asked["dtype"] == torch.bfloat16
    assert asked["device_map"] == {"": CUDA}
    assert asked["quantization_config"].load_in_4bit


def test_a_quantised_head_is_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match="the head of 'X' is quantised too"):
        quantizing.check_head(model, "X", 8)
