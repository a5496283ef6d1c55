from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from limbeck.data.templates import (
    ChatTemplate,
    PaperTemplate,
    PlainTemplate,
    Template,
    choose_template,
    described,
    end_of_turn,
)
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError, ModelError
from limbeck.records import Example, Message

ASKED = (Message(role="user", content="Who?", input="Ann did."),)
TALK = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="a"),
    Message(role="assistant", content=" b "),
    Message(role="user", content="c"),
)
Make = Callable[..., Any]


def test_paper_layout_with_input() -> None:
    assert PaperTemplate().prompt_text(ASKED) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWho?\n\n### Input:\nAnn did.\n\n### Response:\n"
    )


def test_paper_layout_of_a_conversation() -> None:
    assert PaperTemplate(end="</s>").prompt_text(TALK) == (
        "Be brief.\n\n### Instruction:\na\n\n### Response:\nb</s>\n\n### Instruction:\nc\n\n### Response:\n"
    )


def test_plain_text_stays_as_it_is() -> None:
    template = PlainTemplate()
    assert template.prompt_text((Message(role="user", content="Paris is "),)) == "Paris is "
    assert template.response_text(" big.\n") == " big.\n"


def test_choice(tokenizer_of: Make, chatml: Any) -> None:
    plain = tokenizer_of()
    assert choose_template("auto", plain).kind == "paper"
    assert choose_template("auto", chatml).kind == "chat"
    assert choose_template("paper", chatml) == PaperTemplate(end="<|im_end|>")
    assert choose_template("plain", plain).kind == "plain"
    for template in (choose_template("auto", plain), choose_template("auto", chatml), PlainTemplate()):
        assert isinstance(template, Template)
    with pytest.raises(ConfigError, match="no chat template"):
        choose_template("chat", plain)
    with pytest.raises(ConfigError, match="enable_thinking"):
        choose_template("auto", plain, {"enable_thinking": False})


def test_chatml(chatml: Any) -> None:
    template = ChatTemplate(chatml)
    assert template.prompt_text(ASKED) == (
        "<|im_start|>system\nBe helpful<|im_end|>\n"
        "<|im_start|>user\nWho?\n\nAnn did.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.prompt_text(TALK).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>"
    )
    assert "assistant\nb<|im_end|>" in template.prompt_text(TALK)
    assert end_of_turn(chatml, template) == chatml.convert_tokens_to_ids("<|im_end|>")


def test_gemma_folds_the_system_message_and_ends_with_end_of_turn(gemma: Any) -> None:
    template = ChatTemplate(gemma)
    assert template.prompt_text(TALK) == (
        "<bos><start_of_turn>user\nBe brief.\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    )
    assert end_of_turn(gemma, template) == gemma.convert_tokens_to_ids("<end_of_turn>") != gemma.eos_token_id
    with pytest.raises(DataError, match=r"refuses these turns \(user, user\): roles must alternate"):
        template.prompt_text((ASKED[0], ASKED[0]))


def test_a_template_that_drops_the_system_message(tokenizer_of: Make) -> None:
    text = (
        "{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = ChatTemplate(tokenizer_of(chat_template=text))
    assert "Be brief.\n\na" in template.prompt_text(TALK)
    greeted = (TALK[0], Message(role="assistant", content="Hello."), *TALK[1:])
    assert template.prompt_text(greeted).startswith(
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBe brief.\n\na<|im_end|>\n"
    )


def test_a_template_without_generation_prompt_gets_the_header(tokenizer_of: Make) -> None:
    text = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    template = ChatTemplate(tokenizer_of(chat_template=text))
    assert template.prompt_text(ASKED).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert template.response_text("x") == "x"


def test_space_before_an_answer_belongs_to_the_answer(tokenizer_of: Make) -> None:
    text = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_of(chat_template=text)
    template = ChatTemplate(tokenizer)
    assert template.prompt_text(ASKED).endswith("[/INST]")
    assert (template.response_text("x "), template.response_text(" ")) == (" x", "")
    assert end_of_turn(tokenizer, template) == tokenizer.eos_token_id


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_template_variables_reach_the_template(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of(chat_template=THINKING)
    silent = ChatTemplate(tokenizer, {"enable_thinking": False})
    assert silent.prompt_text(ASKED).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert ChatTemplate(tokenizer).prompt_text(ASKED).endswith("<|im_start|>assistant\n")
    assert silent.response_text("x") == ChatTemplate(tokenizer).response_text("x") == "x"


def test_what_a_template_writes_before_an_answer_and_no_row_has_is_told(tokenizer_of: Make) -> None:
    tokenizer = tokenizer_of(chat_template=THINKING)
    assert described(ChatTemplate(tokenizer)) == (
        "template: chat; '<think>\\n\\n</think>\\n\\n', which it writes before an answer, is not learned "
        "(see models.chat_template_kwargs)"
    )
    assert described(ChatTemplate(tokenizer, {"enable_thinking": False})) == "template: chat"
    assert described(PaperTemplate()) == "template: paper"


def test_a_thought_that_the_header_begins_is_not_begun_again(tokenizer_of: Make) -> None:
    text = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    template = ChatTemplate(tokenizer_of(chat_template=text))
    assert template.opens_thoughts
    assert template.prompt_text(ASKED).endswith("<|im_start|>assistant\n<think>\n")
    assert template.response_text("<think>\nhm\n</think>\n\nx ") == "hm\n</think>\n\nx"
    assert template.response_text("hm</think>x") == "hm</think>x"
    example = Example(id="e", messages=ASKED, references=("x",))
    encoder = Encoder(tokenizer_of(chat_template=text), template)
    encoder.rows([example, replace(example, references=("<think>hm</think>x",))])
    assert encoder.report.open_thoughts == 1
    assert "1 responses without </think>" in "\n".join(encoder.report.lines())


def test_a_thought_that_the_answer_begins_stays(tokenizer_of: Make) -> None:
    template = ChatTemplate(tokenizer_of(chat_template=THINKING))
    assert not template.opens_thoughts
    assert template.response_text("<think>hm</think>x") == "<think>hm</think>x"


def test_the_date_stands_still(tokenizer_of: Make) -> None:
    text = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }} {{ strftime_now('%x') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    )
    assert ChatTemplate(tokenizer_of(chat_template=text)).prompt_text(ASKED).startswith("26 Jul 2024 2024-07-26Who?")


def test_templates_that_are_no_good(tokenizer_of: Make) -> None:
    with pytest.raises(ConfigError, match="drops the answer"):
        ChatTemplate(tokenizer_of(chat_template="{{ messages[0]['content'] }}"))
    with pytest.raises(ConfigError, match="cannot render"):
        ChatTemplate(tokenizer_of(chat_template="{{ raise_exception('broken') }}"))
    with pytest.raises(ModelError, match="no EOS token"):
        end_of_turn(tokenizer_of(eos=None), PaperTemplate())


def test_heavy_libraries_stay_out() -> None:
    code = (
        "import sys, limbeck.data, limbeck.data.examples, limbeck.data.corpora, limbeck.data.templates, "
        "limbeck.data.assembling, limbeck.data.tokenizing; limbeck.data.load_corpus;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'nltk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
