from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from limbeck.errors import ConfigError, ModelError
from limbeck.models import LoraSettings, add_lora, load_model, load_tokenizer, merged, resolve_device, resolve_dtype
from limbeck.models.loading import load_config
from limbeck.testing import ARCHITECTURES, save_tiny, tiny_model

TOKENS = torch.arange(40, 60).unsqueeze(0)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_loads_in_full_precision(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny(tmp_path / "model", architecture=architecture)
    model = load_model(str(folder), device="cpu")
    assert torch.equal(logits(model), logits(tiny_model(architecture)))
    assert (model.dtype, model.training, model.name_or_path) == (torch.float32, False, str(folder))
    assert load_tokenizer(str(folder)).encode("a<end>") == [97, 260]


def test_dtype_and_attention_are_taken(tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "m")), dtype="bf16", device="cpu", attention="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["float16", "fp16", "half"])
def test_half_precision_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"refused.*\n.*use float32, or bfloat16"):
        load_model(str(save_tiny(tmp_path / "m")), dtype=name, device="cpu")


def test_a_half_precision_folder_loads_in_float32(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    tiny_model().half().save_pretrained(folder)
    assert load_model(str(folder), device="cpu").dtype == torch.float32


def test_unknown_dtype_and_device() -> None:
    with pytest.raises(ConfigError, match="'int4' is unknown"):
        resolve_dtype("int4", device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="no device is called 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not available"):
            resolve_device("cuda:1")
    with pytest.raises(ConfigError, match="'meta' is not available on this machine"):
        resolve_device("meta")
    with pytest.raises(ConfigError, match="'cpu:3' is not available on this machine; the last one is cpu:0"):
        resolve_device("cpu:3")


def test_attention_that_this_machine_cannot_train_with_is_told(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"flex_attention computes no gradients on a CPU; set models.attention=auto"):
        load_model(str(folder), device="cpu", attention="flex_attention")
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(ModelError, match=r"FlashAttention2[\s\S]*or set models.attention=auto"):
            load_model(str(folder), device="cpu", attention="flash_attention_2")


def test_auto_device_prefers_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device().type == "cuda"


def test_auto_dtype_is_bfloat16_only_for_a_frozen_model_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    cuda = torch.device("cuda")
    assert resolve_dtype(device=cuda, frozen=True) == torch.bfloat16
    assert resolve_dtype(device=cuda) == torch.float32
    assert resolve_dtype(device=torch.device("cpu"), frozen=True) == torch.float32


def test_pickled_weights_need_permission(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickle(.|\n)*allow_bin=true"):
        load_model(str(folder), device="cpu")
    assert torch.equal(logits(load_model(str(folder), device="cpu", allow_bin=True)), logits(tiny_model()))


class Malice:
    """What a pickle can do: call anything when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused_even_with_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny(tmp_path / "m")
    torch.save({"model.norm.weight": Malice()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        load_model(str(folder), device="cpu", allow_bin=True)
    assert "code ran" not in capsys.readouterr().out


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(str(folder), device="cpu")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").touch()
    with pytest.raises(ModelError, match="only an adapter"):
        load_model(str(folder), device="cpu")


def test_missing_tensors_are_not_made_up(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", layers=1)
    deeper = save_tiny(tmp_path / "deeper", layers=2)
    (deeper / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"lack \d+ tensors"):
        load_model(str(deeper), device="cpu")


def test_a_corrupt_file(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")


def test_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist(.|\n)*smollm2-135m-instruct"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file"):
        load_tokenizer(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["nobody/nothing-here", "not a valid id!"])
def test_a_hub_id_without_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelError, match=r"the hub gave no model(.|\n)*offline: copy the model's folder"):
            load(name)


def test_code_of_a_repository_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny(tmp_path / "m")
    text = (folder / "config.json").read_text().replace('"llama"', '"stranger"')
    config = text.replace("{", '{"auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"},', 1)
    (folder / "config.json").write_text(config)
    (folder / "mine.py").write_text("print('code ran')\n")
    with pytest.raises(ModelError, match="runs no code from a model repository"):
        load_model(str(folder), device="cpu")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_starts_as_nothing_and_merges(architecture: str) -> None:
    pytest.importorskip("peft")
    plain, model = tiny_model(architecture), tiny_model(architecture)
    before = torch.random.get_rng_state()
    assert add_lora(model, LoraSettings(rank=3)) is model
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.allclose(logits(model), logits(plain), atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    whole = merged(model)
    assert torch.allclose(logits(whole), logits(model), atol=1e-4)
    assert not torch.allclose(logits(whole), logits(plain), atol=1e-2)
    assert set(whole.state_dict()) == set(plain.state_dict())
    assert merged(plain) is plain


def test_lora_without_peft_or_with_wrong_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="LoRA cannot be added"):
        add_lora(tiny_model(), LoraSettings(targets=("nothing",)))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install limbeck\[lora\]"):
        add_lora(tiny_model(), LoraSettings())


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("architecture", "targets", "what"),
    [
        ("llama", ("lm_head",), "lm_head is the head"),
        ("llama", ("q_proj", "lm_head"), "lm_head is the head"),
        ("qwen2", ("q_proj", "embed_tokens"), "embed_tokens is the embedding, which shares its weights with the head"),
    ],
)
def test_lora_on_the_head_is_refused(architecture: str, targets: tuple[str, ...], what: str) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=rf"models\.lora\.targets is \[.*\], and .*{what}"):
        add_lora(tiny_model(architecture), LoraSettings(targets=targets))


def test_lora_on_an_embedding_of_its_own_is_trained_and_merged() -> None:
    pytest.importorskip("peft")
    model = add_lora(tiny_model("llama"), LoraSettings(rank=2, targets=("embed_tokens",)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1)
    assert not torch.allclose(logits(model), logits(tiny_model("llama")), atol=1e-2)
    assert torch.allclose(logits(merged(model)), logits(model), atol=1e-4)


def _broken(folder: Path, file: str, content: str) -> str:
    (save_tiny(folder) / file).write_text(content)
    return str(folder)


def _with_setting(folder: Path, key: str, value: object) -> str:
    settings = json.loads((save_tiny(folder) / "config.json").read_text())
    return _broken(folder, "config.json", json.dumps({**settings, key: value}))


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_damaged_tokenizer_names_the_folder(content: str, tmp_path: Path) -> None:
    folder = _broken(tmp_path / "m", "tokenizer.json", content)
    with pytest.raises(ModelError, match=f"the tokenizer '{folder}' cannot be loaded: "):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("hidden_size", "wide", "'hidden_size'"),
        ("hidden_size", 33, "33"),
        ("num_attention_heads", 0, "ZeroDivisionError"),
        ("vocab_size", 100, "num_embeddings"),
        ("model_type", "nope", "nope"),
    ],
)
def test_a_damaged_configuration_names_the_folder_and_the_cause(
    key: str, value: object, why: str, tmp_path: Path
) -> None:
    folder = _with_setting(tmp_path / "m", key, value)
    with pytest.raises(ModelError, match=f"'{folder}' cannot be loaded: .*{why}"):
        load_model(folder, device="cpu")


def test_too_little_memory_is_no_fault_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **settings: object) -> None:
        raise MemoryError

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", full)
    with pytest.raises(MemoryError):
        load_config(str(save_tiny(tmp_path / "m")))
