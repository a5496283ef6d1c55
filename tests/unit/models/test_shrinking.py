from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from limbeck.errors import ConfigError, NothingToLearn
from limbeck.models import (
    LoraSettings,
    add_lora,
    drop_importance,
    drop_order,
    load_model,
    measured_layers,
    measuring,
    save_student,
    shrink,
)
from limbeck.testing import ARCHITECTURES, byte_tokenizer, save_tiny, save_toy, tiny_model
from limbeck.types import Sequences, pack_rows

# Longer than Gemma's window of 16 tokens, so that a wrong layer type changes the logits.
TOKENS = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(0))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits  # type: ignore[no-any-return]


def rows() -> Sequences:
    lengths, answers = (30, 24), (9, 5)
    flags = [[False] * (n - m) + [True] * m for n, m in zip(lengths, answers, strict=True)]
    tokens = [TOKENS[0, :n].tolist() for n in lengths]
    return pack_rows(tokens, flags, origin=["reference"] * 2, keys=[(0, 0), (0, 1)], pad_id=256)


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    return max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shrunk_model_is_the_model_without_those_layers(architecture: str) -> None:
    model = tiny_model(architecture, layers=5)
    small = shrink(model, layers=[0, 3, 4])
    hooks = [
        layer.register_forward_hook(
            lambda module, args, output: (args[0], *output[1:]) if isinstance(output, tuple) else args[0]
        )
        for layer in (layers_of(model)[1], layers_of(model)[2])
    ]
    without = logits(model)
    for hook in hooks:
        hook.remove()
    assert torch.allclose(logits(small), without, atol=1e-5)
    assert small.config.num_hidden_layers == 3
    assert len(layers_of(small)) == 3
    assert model.config.num_hidden_layers == 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_with_a_cache_equals_generation_without(architecture: str) -> None:
    small = shrink(tiny_model(architecture, layers=5), layers=[0, 1, 4], mlp_width=24)
    arguments = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    with_cache = small.generate(TOKENS, use_cache=True, **arguments)
    without = small.generate(TOKENS, use_cache=False, **arguments)
    assert torch.equal(with_cache, without)
    numbers = sorted(m.layer_idx for m in small.modules() if isinstance(getattr(m, "layer_idx", None), int))
    assert set(numbers) == {0, 1, 2}


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3", "qwen2", "qwen3"])
def test_layer_types_follow_their_layers(architecture: str) -> None:
    model = tiny_model(architecture, layers=5)
    kept = [1, 2, 4]
    assert shrink(model, layers=kept).config.layer_types == [model.config.layer_types[i] for i in kept]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tied_weights_stay_tied_through_saving(tmp_path: Path, architecture: str) -> None:
    model = tiny_model(architecture, layers=3)
    small = shrink(model, layers=[0, 2])
    assert (small.get_output_embeddings().weight is small.get_input_embeddings().weight) == bool(
        model.config.tie_word_embeddings
    )
    again = load_model(str(save_student(small, byte_tokenizer(), tmp_path / "s")), device="cpu")
    assert torch.equal(logits(again), logits(small))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_narrowing_drops_the_weakest_units(architecture: str) -> None:
    model = tiny_model(architecture, layers=2)
    width = 64
    dead = torch.arange(0, width, 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("down_proj.weight", "fc2.weight")):
                parameter[:, dead] = 0
            elif name.endswith("mlp.c_proj.weight"):
                parameter[dead, :] = 0
    small = shrink(model, mlp_width=width - len(dead))
    assert torch.allclose(logits(small), logits(model), atol=1e-5)
    assert small.num_parameters() < model.num_parameters()
    with pytest.raises(ConfigError, match="choose 1 to 64"):
        shrink(model, mlp_width=65)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_importance_is_the_kl_to_the_model_without_the_layer(architecture: str) -> None:
    model, sequences = tiny_model(architecture, layers=3), rows()
    found = drop_importance(model, sequences)
    full = logits(model)[0].log_softmax(-1)
    expected = []
    for layer in range(3):
        kept = [i for i in range(3) if i != layer]
        q = logits(shrink(model, layers=kept))[0].log_softmax(-1)
        kl = (full.exp() * (full - q)).sum(-1)
        # Row 0: tokens 21-29 are the response, row 1: tokens 19-23; both rows are beginnings of TOKENS.
        expected.append(float(torch.cat([kl[20:29], kl[18:23]]).mean()))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert all(not layer._forward_hooks for layer in layers_of(model))


def test_importance_decides_what_is_kept() -> None:
    model = tiny_model(layers=4)
    small = shrink(model, layers=2, importance=[0.1, 0.9, 0.2, 0.8])
    assert torch.equal(logits(small), logits(shrink(model, layers=[1, 3])))


def test_lora_is_merged_before_shrinking() -> None:
    pytest.importorskip("peft")
    model = add_lora(tiny_model(layers=3), LoraSettings(rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    assert torch.allclose(logits(shrink(model, layers=[0, 1, 2])), logits(model), atol=1e-4)


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [-1, 1], [0, 3]])
def test_wrong_layers_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="rising numbers from 0 to 2"):
        shrink(tiny_model(layers=3), layers=layers)


def test_a_count_needs_an_importance() -> None:
    model = tiny_model(layers=3)
    with pytest.raises(ConfigError, match=r"no layer importance(.|\n)*drop_importance"):
        shrink(model, layers=2)
    with pytest.raises(ConfigError, match="9 of 3 layers cannot be kept; choose 1 to 3"):
        shrink(model, layers=9)
    with pytest.raises(ConfigError, match="2 numbers, but the model has 3 layers"):
        shrink(model, layers=2, importance=[1.0, 2.0])
    with pytest.raises(ConfigError, match="choose 1 to 3"):
        shrink(model, layers=0, importance=[1.0, 2.0, 3.0])


def test_rows_without_a_response_measure_nothing() -> None:
    empty = pack_rows([[1, 2]], [[False, False]], origin=["reference"], keys=[(0, 0)], pad_id=0)
    with pytest.raises(NothingToLearn):
        drop_importance(tiny_model(), empty)


def test_the_drop_order_measures_again_after_each_drop() -> None:
    model, sequences = tiny_model(layers=4, seed=5), rows()
    left, expected = [0, 1, 2, 3], []
    while len(left) > 2:
        full = logits(model)[0].log_softmax(-1)
        score = {}
        for layer in left:
            q = logits(shrink(model, layers=[i for i in left if i != layer]))[0].log_softmax(-1)
            kl = (full.exp() * (full - q)).sum(-1)
            score[layer] = float(torch.cat([kl[20:29], kl[18:23]]).mean())
        expected.append(min(left, key=lambda layer: score[layer]))
        left.remove(expected[-1])
    assert drop_order(model, sequences, keep=2) == tuple(expected)
    importance = drop_importance(model, sequences)
    together = drop_order(model, sequences, keep=2, at_once=2)
    assert together == tuple(sorted(range(4), key=lambda i: importance[i])[:2])
    with pytest.raises(ConfigError, match="keep 1 to 4"):
        drop_order(model, sequences, keep=0)


def test_measuring_writes_what_shrink_reads(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", layers=3)
    data = save_toy(tmp_path / "toy.jsonl", 6)
    arguments = [str(model), "--corpus", str(data), "--rows", "4", "--keep", "1", "--at-once", "1", "--device", "cpu"]
    measuring.main([*arguments, "--out", str(tmp_path / "record.json")])
    record = json.loads((tmp_path / "record.json").read_text())
    assert (len(record["importance"]), len(record["drop_order"])) == (3, 2)
    assert set(record["keep"]) == {"2", "1"}
    assert record["rows"] == 4
    assert record["command"].endswith("--max-length 128 --keep 1 --at-once 1")


def test_the_shipped_measurement_fits_the_model() -> None:
    text = resources.files("limbeck.models").joinpath("shrink_smollm2.json").read_text()
    record = json.loads(text)
    assert len(record["importance"]) == 30
    assert record["command"].startswith("python -m limbeck.models.measuring smollm2-135m-instruct")
    for count in range(10, 30):
        assert list(measured_layers("smollm2-135m-instruct", count)) == record["keep"][str(count)]
    assert {0, 1, 29} <= set(measured_layers("smollm2-135m-instruct", 15))
    assert measured_layers("smollm2-135m-instruct", 30) == tuple(range(30))
    with pytest.raises(ConfigError, match="choose 10 to 30"):
        measured_layers("smollm2-135m-instruct", 9)
