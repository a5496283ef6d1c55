from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from limbeck.errors import ConfigError, VocabularyMismatch
from limbeck.losses.heads import Head
from limbeck.models import LoraSettings, Pair, Vocabulary, compare_vocabularies
from limbeck.testing import ARCHITECTURES, byte_tokenizer, save_tiny, tiny_model, tiny_pair


def words(names: list[str], special: dict[int, str] | None = None, name: str = "words") -> PreTrainedTokenizerBase:
    """A tokenizer whose regular tokens are `names` from id 0; `special` tokens stand at their ids."""
    special = special or {}
    vocab = {token: id for id, token in enumerate(names)} | {token: id for id, token in special.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token=names[0])))
    fast.add_special_tokens({"extra_special_tokens": list(special.values())})
    fast.name_or_path = name
    return fast


def compare(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, *, teacher_width: int, student_width: int
) -> Vocabulary:
    return compare_vocabularies(
        teacher_tokenizer=teacher,
        student_tokenizer=student,
        teacher_width=teacher_width,
        student_width=student_width,
    )


def test_padded_widths_leave_a_prefix() -> None:
    same = words(["a", "b", "c"])
    found = compare(same, same, teacher_width=8, student_width=5)
    assert (found.size, found.shared, found.width) == (3, None, 3)
    assert found.dropped_student == (3, 4)
    assert found.dropped_teacher == (3, 4, 5, 6, 7)
    assert found.dropped == ()
    assert found.lines() == ""


def test_special_tokens_that_differ_are_dropped_and_printed() -> None:
    teacher = words(["a", "b"], {2: "<x>", 3: "<same>"})
    student = words(["a", "b"], {2: "<y>", 3: "<same>"})
    found = compare(teacher, student, teacher_width=4, student_width=4)
    assert found.size == 3
    assert found.shared is not None
    assert found.shared.tolist() == [True, True, False, True]
    assert found.dropped_student == (2,)
    assert found.dropped == ((2, "teacher '<x>', student '<y>'"),)
    assert "2: teacher '<x>', student '<y>'" in found.lines()
    head = Head(weight=None, size=found.width, shared=found.shared)
    assert head(torch.zeros(1, 4)).exp()[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_special_tokens_that_one_side_lacks_are_dropped() -> None:
    found = compare(words(["a"], {1: "<x>", 2: "<y>"}), words(["a"], {1: "<x>"}), teacher_width=4, student_width=4)
    assert (found.size, found.shared) == (2, None)
    assert found.dropped_student == (2, 3)
    assert found.dropped == ((2, "teacher '<y>', student nothing"),)


def test_a_token_without_a_column_is_dropped() -> None:
    same = words(["a", "b"], {2: "<x>"})
    found = compare(same, same, teacher_width=3, student_width=2)
    assert found.size == 2
    assert found.dropped_teacher == (2,)
    assert "no column" in found.dropped[0][1]


@pytest.mark.parametrize(
    ("teacher", "student", "difference"),
    [
        (words(["<s>", "b"], name="opt"), words(["!", "b"], name="gpt2"), "id 0, '!' and '<s>'"),
        (words(["a", "b", "c"], name="opt"), words(["a", "b"], name="gpt2"), "id 2, no token and 'c'"),
        (words(["a"], {1: "<x>"}, name="opt"), words(["a", "b"], name="gpt2"), "id 1, 'b' and '<x>'"),
    ],
)
def test_a_regular_token_that_differs_refuses_the_pair(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, difference: str
) -> None:
    with pytest.raises(VocabularyMismatch) as caught:
        compare(teacher, student, teacher_width=8, student_width=8)
    message = str(caught.value)
    assert f"first difference: {difference}" in message
    assert f"student gpt2: {len(student)} tokens    teacher opt: {len(teacher)} tokens" in message
    assert "seqkd, undo" in message


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_teacher_is_frozen_and_the_student_is_not(architecture: str) -> None:
    pair = tiny_pair(architecture)
    assert pair.teacher is not None
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    assert all(parameter.requires_grad for parameter in pair.student.parameters())


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama"])
@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_off_unless_wanted(architecture: str, dropout: bool) -> None:
    student = tiny_model(architecture)
    config = type(student.config)(
        **{
            **student.config.to_dict(),
            **dict.fromkeys(("attn_pdrop", "resid_pdrop", "dropout", "attention_dropout"), 0.5),
        }
    )
    student = type(student)(config)
    pair = Pair.load(teacher=None, student=student, tokenizer=byte_tokenizer(), dropout=dropout)
    tokens = torch.arange(1, 20).unsqueeze(0)
    model = pair.student.train()
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, model(tokens).logits) is not dropout


def test_every_end_is_a_stop_id() -> None:
    student = tiny_model()
    student.generation_config = GenerationConfig(eos_token_id=[10, 11])
    pair = Pair.load(teacher=None, student=student, tokenizer=byte_tokenizer())
    assert pair.stop_ids == {10, 11, 258, 260}
    plain = Pair.load(teacher=None, student=tiny_model(), tokenizer=byte_tokenizer(chat=False, pad=False))
    assert plain.stop_ids == {258}
    assert plain.pad_id == 258


def test_batches_are_filled_with_a_token_that_both_models_have() -> None:
    tokenizer = byte_tokenizer(extra_tokens=["[PAD]"])
    tokenizer.pad_token = "[PAD]"
    for teacher, student in ((261, 262), (262, 261), (261, 261)):
        pair = Pair.load(
            teacher=tiny_model(vocab_size=teacher),
            student=tiny_model(vocab_size=student),
            tokenizer=tokenizer,
            teacher_tokenizer=tokenizer,
        )
        assert pair.pad_id == 258
    assert Pair.load(teacher=None, student=tiny_model(vocab_size=262), tokenizer=tokenizer).pad_id == 261


def test_no_shared_end_refuses_the_pair() -> None:
    ids = {"eos_token": "<s-end>"}
    student = words(["a", "b"], {2: "<s-end>"})
    student.add_special_tokens(ids)
    model = tiny_model(vocab_size=8)
    model.generation_config = GenerationConfig()
    with pytest.raises(VocabularyMismatch, match="ends a response"):
        Pair.load(
            teacher=tiny_model(vocab_size=8),
            student=model,
            tokenizer=student,
            teacher_tokenizer=words(["a", "b"], {2: "<t-end>"}),
        )


def test_models_by_folder(tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher", seed=1)
    student = save_tiny(tmp_path / "student", seed=2, architecture="qwen3")
    pair = Pair.load(teacher=str(teacher), student=str(student), device="cpu", teacher_device="cpu")
    assert (pair.teacher_name, pair.student_name) == (str(teacher), str(student))
    assert pair.student.dtype == torch.float32
    assert pair.pad_id == 256


def test_a_nameless_model_needs_its_tokenizer() -> None:
    with pytest.raises(ConfigError, match="pass tokenizer="):
        Pair.load(teacher=None, student=tiny_model())
    with pytest.raises(ConfigError, match="pass teacher_tokenizer="):
        Pair.load(teacher=tiny_model(), student=tiny_model(), tokenizer=byte_tokenizer())


def test_one_object_is_not_a_pair() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="one object"):
        Pair.load(teacher=model, student=model, tokenizer=byte_tokenizer(), teacher_tokenizer=byte_tokenizer())


def test_lora_trains_only_its_own_matrices() -> None:
    pytest.importorskip("peft")
    pair = Pair.load(teacher=None, student=tiny_model(), tokenizer=byte_tokenizer(), lora=LoraSettings(rank=2))
    trained = [name for name, parameter in pair.student.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
