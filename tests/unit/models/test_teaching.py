from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck.models import LoraSettings, Pair, load_model
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.models.teaching import AdapterOff, Offloaded, teacher_of
from limbeck.testing import save_tiny, tiny_model, tiny_pair
from limbeck.types import Sequences, pack_rows


def _rows() -> Sequences:
    flags = [[False, False, True, True, True], [False, True, True]]
    return pack_rows([[5, 9, 6, 7, 9], [8, 4, 3]], flags, origin=["reference"] * 2, keys=[(0,), (1,)], pad_id=0)


def _based(folder: Path, *, dropout: bool = False) -> Pair:
    name = str(save_tiny(folder / "base", architecture="gpt2", seed=2))
    settings = LoraSettings(rank=2, dropout=0.5)
    pair = Pair.load(
        teacher=name, student=name, lora=settings, teacher_is_base=True, dropout=dropout, device="cpu", seed=3
    )
    with torch.no_grad():
        for key, parameter in pair.student.named_parameters():
            if "lora_B" in key:
                parameter.fill_(0.1)
    return pair


@pytest.mark.parametrize("mode", [True, False])
def test_the_base_is_read_as_a_model_of_its_own_would_be(tmp_path: Path, mode: bool) -> None:
    pair, rows = _based(tmp_path, dropout=True), _rows()
    where = scored_tokens(rows)
    teacher, student = teacher_of(pair), Scorer.of(pair.student, vocabulary=pair.vocabulary)
    assert teacher is not None
    apart = Scorer.of(load_model(pair.teacher_name, device="cpu"), vocabulary=pair.vocabulary)
    pair.student.train(mode)
    found, expected = teacher.view(rows, where), apart.view(rows, where)
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.log_probabilities(slice(None)), expected.log_probabilities(slice(None)))
    assert not torch.equal(found.hidden, student.view(rows, where).hidden), "LoRA is on again"
    assert pair.student.training is mode


def test_what_is_trained_stays_trained_even_after_an_error(tmp_path: Path) -> None:
    pair = _based(tmp_path)
    before = {name: p.requires_grad for name, p in pair.student.named_parameters()}
    assert any(before.values())
    with pytest.raises(ZeroDivisionError), AdapterOff(pair.student).forward():
        raise ZeroDivisionError
    assert {name: p.requires_grad for name, p in pair.student.named_parameters()} == before
    assert pair.student is pair.teacher


def test_an_offloaded_teacher_is_on_its_device_only_while_it_is_asked() -> None:
    model = tiny_model("qwen2", seed=1).requires_grad_(False)
    numbers = {name: p.clone() for name, p in model.named_parameters()}
    total = sum(
        t.numel() * t.element_size() for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    )
    away = Offloaded(model, device=torch.device("meta"))
    assert (away.device.type, away.bytes_here) == ("meta", 0)
    head = model.get_output_embeddings()
    away.ready(head)
    kept = head.weight.detach()
    assert kept.is_meta
    assert away.bytes_here == kept.numel() * 4, "the head alone"
    with away.forward():
        assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
        assert model(torch.zeros((1, 3), dtype=torch.long, device="meta")).logits.shape == (1, 3, 264)
    assert away.bytes_here == total, "it stays until it is told to leave"
    away.leave()
    assert away.bytes_here == 0
    assert kept.is_meta, "what a view holds is not taken away"
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, numbers[name]), name
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_an_offloaded_teacher_says_the_same_as_one_that_stays() -> None:
    pair, rows = tiny_pair(), _rows()
    assert pair.teacher is not None
    where = scored_tokens(rows)
    stays = Scorer.of(pair.teacher, vocabulary=pair.vocabulary).view(rows, where)
    presence = Offloaded(pair.teacher, device=torch.device("cpu"))
    leaves = Scorer.of(pair.teacher, vocabulary=pair.vocabulary, presence=presence)
    for _ in range(2):
        found = leaves.view(rows, where)
        presence.leave()
        assert torch.equal(found.log_probabilities(slice(None)), stays.log_probabilities(slice(None)))


def test_offloading_on_a_cpu_is_nothing(tmp_path: Path) -> None:
    name = str(save_tiny(tmp_path / "model"))
    pair = Pair.load(teacher=name, student=name, teacher_offload=True, device="cpu", teacher_device="cpu")
    assert pair.teacher_home is None
