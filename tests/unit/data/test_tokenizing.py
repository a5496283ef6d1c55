from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from limbeck.data.cutting import GAP, middle_cut, shortened
from limbeck.data.templates import PaperTemplate, PlainTemplate, choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError, NothingToLearn
from limbeck.records import EncodedRow, Example, Message, Role

Make = Callable[..., Any]


def encoder_of(tokenizer: Any, **settings: Any) -> Encoder:
    name = settings.pop("template", "auto")
    sizes = {"max_prompt": 400, "max_length": 800, **settings}
    return Encoder(tokenizer, choose_template(name, tokenizer), **sizes)


def text_of(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def learned(tokenizer: Any, row: EncodedRow) -> list[str]:
    """The runs of response tokens as text."""
    runs: list[list[int]] = []
    for i, (token, flag) in enumerate(zip(row.tokens, row.is_response, strict=True)):
        if flag and (i == 0 or not row.is_response[i - 1]):
            runs.append([])
        if flag:
            runs[-1].append(token)
    return [text_of(tokenizer, run) for run in runs]


@pytest.fixture(params=["chatml", "gemma", "paper", "paper-bos", "plain"])
def tokenizer(request: pytest.FixtureRequest, tokenizer_of: Make) -> Any:
    if request.param in ("chatml", "gemma"):
        return request.getfixturevalue(request.param)
    return tokenizer_of(adds_bos=request.param == "paper-bos")


@pytest.mark.parametrize("train_on", ["last", "all"])
@pytest.mark.parametrize("turns", [("hi",), ("a", "b", "c"), ("a", " b\n", "c", "d", "é€")])
def test_a_row_begins_with_its_prompt(
    tokenizer: Any, make_example: Make, train_on: str, turns: tuple[str, ...]
) -> None:
    encoder = encoder_of(tokenizer, train_on=train_on)
    example = make_example(*turns, system="S", input="ctx", references=("Yes, ça.", "No."))
    row = encoder.row(example)
    assert row is not None
    assert row.prompt == row.tokens[: len(row.prompt)] == encoder.prompt(example)
    assert len(row.tokens) == len(row.is_response)
    assert all(row.is_response[len(row.prompt) :])
    assert row.tokens[-1] == encoder.end_id
    assert not row.cut
    assert encoder.decode(row.tokens[len(row.prompt) :]) == "Yes, ça."
    assert text_of(tokenizer, row.tokens).startswith(text_of(tokenizer, row.prompt))
    assert encoder.report.boundary_merges == 0


def test_the_whole_text_is_the_templates_own(chatml: Any, make_example: Make) -> None:
    row = encoder_of(chatml).row(make_example("a", "b", "c", system="S"))
    assert row is not None
    turns = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "Yes.")]
    whole = chatml.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], tokenize=True, return_dict=False
    )
    # The template ends with a line break after the last end of turn, which no response contains.
    assert list(row.tokens) == whole[:-1]


def test_all_assistant_turns_with_their_ends_are_learned(chatml: Any, gemma: Any, make_example: Make) -> None:
    example = make_example("a", "b", "c", "d", "e", system="S")
    for tokenizer, end in ((chatml, "<|im_end|>"), (gemma, "<end_of_turn>")):
        every, last = (encoder_of(tokenizer, train_on=which).row(example) for which in ("all", "last"))
        assert every is not None
        assert last is not None
        assert learned(tokenizer, every) == [f"b{end}", f"d{end}", f"Yes.{end}"]
        assert learned(tokenizer, last) == [f"Yes.{end}"]
        assert every.tokens == last.tokens


def test_paper_layout_learns_all_turns_too(tokenizer_of: Make, make_example: Make) -> None:
    tokenizer = tokenizer_of()
    row = encoder_of(tokenizer, train_on="all").row(make_example("a", "b", "c"))
    assert row is not None
    assert learned(tokenizer, row) == ["b<eos>", "Yes.<eos>"]


def test_a_template_that_rewrites_history_refuses_all(tokenizer_of: Make, make_example: Make) -> None:
    text = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] if loop.last or m['role'] == 'user' else '(gone)' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = tokenizer_of(chat_template=text)
    example = make_example("a", "b", "c")
    with pytest.raises(DataError, match=r"train_on is 'all'[\s\S]*my\.jsonl line 1"):
        encoder_of(tokenizer, train_on="all").row(example)
    row = encoder_of(tokenizer).row(example)
    assert row is not None
    assert learned(tokenizer, row) == ["Yes.<|im_end|>"]
    assert "(gone)" in text_of(tokenizer, row.prompt)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_exactly_one_bos_where_the_tokenizer_wants_one(tokenizer_of: Make, make_example: Make, adds_bos: bool) -> None:
    tokenizer = tokenizer_of(adds_bos=adds_bos)
    row = encoder_of(tokenizer, train_on="all").row(make_example("a", "b", "c"))
    assert row is not None
    assert list(row.tokens).count(tokenizer.bos_token_id) == int(adds_bos)
    assert (row.tokens[0] == tokenizer.bos_token_id) == adds_bos


def test_gemma_has_one_bos_although_template_and_tokenizer_add_it(gemma: Any, make_example: Make) -> None:
    prompt = encoder_of(gemma).prompt(make_example("a"))
    assert prompt[0] == gemma.bos_token_id
    assert prompt.count(gemma.bos_token_id) == 1


def test_end_of_turn_is_learned_where_pad_is_eos(chatml: Any, make_example: Make) -> None:
    assert chatml.pad_token_id == chatml.eos_token_id
    row = encoder_of(chatml).row(make_example("a"))
    assert row is not None
    assert (row.tokens[-1], row.is_response[-1]) == (chatml.eos_token_id, True)


def test_empty_response_is_just_the_end(tokenizer: Any, make_example: Make) -> None:
    encoder = encoder_of(tokenizer)
    row = encoder.row(make_example("a"), "")
    assert row is not None
    assert row.tokens[len(row.prompt) :] == (encoder.end_id,)
    assert encoder.decode(row.tokens[len(row.prompt) :]) == ""


def test_another_response_than_the_reference(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml)
    row = encoder.row(make_example("a"), "Perhaps.")
    assert row is not None
    assert learned(chatml, row) == ["Perhaps.<|im_end|>"]


def test_long_response_is_cut_without_an_end(chatml: Any, make_example: Make) -> None:
    example = make_example("a", references=("x" * 50,))
    size = len(encoder_of(chatml).prompt(example))
    for room, cut in ((51, False), (50, True), (20, True)):
        encoder = encoder_of(chatml, max_prompt=size, max_length=size + room)
        row = encoder.row(example)
        assert row is not None
        assert (row.cut, encoder.report.cut_responses) == (cut, int(cut))
        assert len(row.tokens) == len(row.is_response) == size + room
        assert (encoder.end_id in row.tokens[size:]) is not cut


def test_drop_leaves_the_row_out_and_counts(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml, max_prompt=100)
    long, short = make_example("y" * 200), make_example("a")
    assert encoder.row(long) is None
    assert len(encoder.prompt(long)) > 200
    assert [row.id for row in encoder.rows([long, short])] == ["e1"]
    assert (encoder.report.rows, encoder.report.dropped_prompts) == (1, 2)
    assert any("2 dropped" in line and "e1" in line for line in encoder.report.lines())
    with pytest.raises(NothingToLearn, match=r"raise data\.max_prompt"):
        encoder_of(chatml, max_prompt=100).rows([long])


@pytest.mark.parametrize("turns", [("q" * 500,), ("old " * 100, "reply", "q" * 500), ("old " * 200, "reply", "short")])
@pytest.mark.parametrize("extra", [{}, {"input": "w" * 600}, {"system": "SYSTEM"}])
def test_cut_keeps_bos_system_and_response_header(
    tokenizer: Any, make_example: Make, turns: tuple[str, ...], extra: dict[str, str]
) -> None:
    encoder = encoder_of(tokenizer, max_prompt=300, max_length=400, long_prompt="cut")
    example = make_example(*turns, **extra)
    row = encoder.row(example)
    assert row is not None
    assert len(row.prompt) <= 300
    assert row.prompt == encoder.prompt(example)
    short = encoder.prompt(make_example("a", system=extra.get("system", "")))
    assert row.prompt[:4] == short[:4]
    assert row.prompt[-9:] == short[-9:]
    assert extra.get("system", "") in text_of(tokenizer, row.prompt)
    assert encoder.report.cut_prompts == 1
    if turns[-1] != "short":
        # As much as fits is kept: the bisection stops within a few tokens of the limit.
        assert len(row.prompt) > 290


def test_cut_takes_the_input_before_the_instruction(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml, max_prompt=200, max_length=300, long_prompt="cut")
    example = make_example("Sum up this text:", input="<" + "w" * 600 + ">")
    text = text_of(chatml, encoder.prompt(example))
    assert "Sum up this text:\n\n<w" in text
    assert "w><|im_end|>" in text
    assert GAP in text


def test_cut_drops_old_turns_first(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml, max_prompt=150, max_length=300, long_prompt="cut", train_on="all")
    row = encoder.row(make_example("old " * 100, "first", "second question", "second", "third", system="S"))
    assert row is not None
    assert learned(chatml, row) == ["second<|im_end|>", "Yes.<|im_end|>"]
    assert "system\nS" in text_of(chatml, row.prompt)


def opened_by_the_assistant(greeting: str, *turns: str) -> Example:
    roles: tuple[Role, ...] = ("assistant", "user")
    messages = tuple(Message(role=roles[index % 2], content=turn) for index, turn in enumerate((greeting, *turns)))
    return Example(id="e1", messages=messages, references=("Yes.",), source="my.jsonl line 1")


def test_a_conversation_that_the_assistant_opens(chatml: Any, tokenizer_of: Make) -> None:
    example = opened_by_the_assistant("Hello!", "a", "b", "c")
    row = encoder_of(chatml).row(example)
    assert row is not None
    assert "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\na" in text_of(chatml, row.prompt)
    assert learned(chatml, row) == ["Yes.<|im_end|>"]
    with pytest.raises(DataError, match=r"opens with an assistant turn[\s\S]*train_on=last[\s\S]*my\.jsonl line 1"):
        encoder_of(chatml, train_on="all").row(example)
    plain = tokenizer_of()
    everything = encoder_of(plain, train_on="all").row(example)
    assert everything is not None
    assert learned(plain, everything) == ["Hello!<eos>", "b<eos>", "Yes.<eos>"]


def test_cut_drops_a_greeting_before_it_cuts_the_question(chatml: Any) -> None:
    encoder = encoder_of(chatml, max_prompt=100, max_length=300, long_prompt="cut")
    text = text_of(chatml, encoder.prompt(opened_by_the_assistant("Hello! " * 100, "a question")))
    assert "Hello!" not in text
    assert "<|im_start|>user\na question<|im_end|>" in text


def test_cut_never_splits_a_character(tokenizer_of: Make, make_example: Make) -> None:
    tokenizer = tokenizer_of()
    for size in range(160, 170):
        encoder = encoder_of(tokenizer, max_prompt=size, max_length=300, long_prompt="cut")
        assert "�" not in text_of(tokenizer, encoder.prompt(make_example("€" * 100)))


def test_nothing_left_to_cut(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml, max_prompt=100, max_length=300, long_prompt="cut")
    with pytest.raises(DataError, match=r"max_prompt = 100[\s\S]*my\.jsonl line 1"):
        encoder.row(make_example("a" * 200, system="S" * 200))


def test_refused_turns_name_the_row(gemma: Any) -> None:
    turn = Message(role="user", content="x")
    example = Example(id="e", messages=(turn, turn), references=("y",), source="my.jsonl line 9")
    with pytest.raises(DataError, match=r"roles must alternate[\s\S]*my\.jsonl line 9"):
        encoder_of(gemma).row(example)


def test_boundary_merge_is_counted_and_the_border_kept(tokenizer_of: Make, make_example: Make) -> None:
    tokenizer = tokenizer_of(merges=(("a", "b"),))
    encoder = Encoder(tokenizer, PlainTemplate())
    row = encoder.row(make_example("xa", references=("bc",)))
    assert row is not None
    assert row.prompt == tuple(tokenizer.encode("xa"))
    assert row.tokens == (*tokenizer.encode("xa"), *tokenizer.encode("bc"), tokenizer.eos_token_id)
    assert encoder.report.boundary_merges == 1
    assert any("one encoding would have joined" in line for line in encoder.report.lines())
    assert Encoder(tokenizer, PlainTemplate()).row(make_example("a", "b", "ab")) is not None


def test_sentencepiece_response_is_encoded_in_context(make_example: Make) -> None:
    letters = [" ", "▁", "\n", *map(chr, range(33, 127))]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate([*letters, "</s>"])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    encoder = Encoder(tokenizer, PaperTemplate())
    row = encoder.row(make_example("a"))
    assert row is not None
    assert tokenizer.convert_ids_to_tokens(list(row.tokens[len(row.prompt) :])) == ["Y", "e", "s", ".", "</s>"]
    assert encoder.report.boundary_merges == 0


def test_control_tokens_in_the_text_are_reported(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml)
    encoder.row(make_example("what is <|im_end|>?"))
    encoder.row(make_example("fine"))
    assert encoder.report.control_tokens == 1


def test_text_without_a_token_is_reported(make_example: Make) -> None:
    letters = ["</s>", "<unk>", " ", *map(chr, range(33, 127))]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    encoder = Encoder(tokenizer, PlainTemplate())
    encoder.rows([make_example("plain"), make_example("two\nlines"), make_example("a", references=("é",))])
    assert encoder.report.counts()["unknown_tokens"] == 2
    assert any(
        line.startswith("2 rows with text that the tokenizer has no token for") for line in encoder.report.lines()
    )
    tokenizer.unk_token = "</s>"
    silent = Encoder(tokenizer, PlainTemplate())
    silent.rows([make_example("plain")])
    assert not silent.report.unknown_tokens


def test_report_lines(chatml: Any, make_example: Make) -> None:
    encoder = encoder_of(chatml)
    assert encoder.report.lines() == ("0 rows: prompt tokens none; response tokens none",)
    encoder.rows([make_example("a"), make_example("aaa")])
    (line,) = encoder.report.lines()
    assert line.startswith("2 rows: prompt tokens median ")
    assert "response tokens median 5, 95 % 5, longest 5" in line


@pytest.mark.parametrize(("max_prompt", "max_length"), [(0, 10), (10, 10), (11, 10)])
def test_lengths_out_of_range(chatml: Any, max_prompt: int, max_length: int) -> None:
    with pytest.raises(ConfigError, match="max_prompt"):
        encoder_of(chatml, max_prompt=max_prompt, max_length=max_length)


def test_middle_cut() -> None:
    assert [middle_cut("abcdef", keep=k) for k in (0, 1, 2, 5)] == ["", f"a{GAP}", f"a{GAP}f", f"abc{GAP}ef"]


@given(words=st.lists(st.integers(1, 12), min_size=1, max_size=60), budget=st.integers(0, 80), asked=st.booleans())
def test_a_cut_prompt_is_as_long_as_fits_to_within_two_tokens(words: list[int], budget: int, asked: bool) -> None:
    text = " ".join("x" * length for length in words)
    message = Message(role="user", content=text, input="") if asked else Message(role="user", content="", input=text)
    looks = 0

    def excess(messages: Sequence[Message]) -> int:
        nonlocal looks
        looks += 1
        return sum(len(each.content.split()) + len(each.input.split()) for each in messages) - budget

    if excess([message]) <= 0:
        return
    cut = shortened([message], excess=excess)
    assert cut is not None
    assert -2 <= excess(cut) <= 0 or len(cut[0].content + cut[0].input) >= len(text) - 1
    assert looks <= 24


def test_rows_together_are_rows_alone(chatml: Any, make_example: Make) -> None:
    examples = [make_example("ab" * n, references=(f"yes {n}",)) for n in range(12)]
    together, alone = (
        encoder_of(chatml, long_prompt="cut", max_prompt=60),
        encoder_of(chatml, long_prompt="cut", max_prompt=60),
    )
    assert list(together.rows(examples)) == [alone.row(example) for example in examples]
    assert together.report == alone.report
    assert together.report.cut_prompts > 0
