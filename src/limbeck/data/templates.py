"""How messages become the text that a model reads: the tokenizer's chat template, the paper's layout, or plain text.

A prompt ends with the response header, so that the next token is the first of the response. Teacher, student, training,
rollouts and evaluation all go through one template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jinja2 import TemplateError

from limbeck.errors import ConfigError, DataError, ModelError, UnknownName
from limbeck.records import Message

Kind = Literal["chat", "paper", "plain"]

_PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_PREAMBLE_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_PROBE = "vqzxj"
_THOUGHTS = "<think>"
# With today's date in the prompt, a run resumed tomorrow would read another text than the run it goes on.
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}"
    "{%- if format == '%d %b %Y' -%}26 Jul 2024{%- elif format == '%d %B %Y' -%}26 July 2024"
    "{%- else -%}2024-07-26{%- endif -%}"
    "{%- endmacro -%}"
)


@runtime_checkable
class Template(Protocol):
    """Messages to text. `adds_bos`: the text carries its own special tokens, so the encoder must not add a BOS."""

    @property
    def kind(self) -> Kind:
        """Which of the three layouts this is."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether the text itself brings the BOS token where the model wants one."""
        ...

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Everything up to and including the header of the response to come."""
        ...

    def response_text(self, text: str) -> str:
        """What is written after the header for this response, without its end-of-turn token."""
        ...


@dataclass(frozen=True)
class PaperTemplate:
    r"""The Alpaca layout, with and without an input, as MiniLLM and DistiLLM use it.

    A system message takes the place of the opening sentence. In a conversation each turn repeats the instruction and
    response sections; `end` (the EOS text) closes the earlier responses. Responses lose outer white space.

    >>> print(PaperTemplate().prompt_text([Message(role="user", content="Say hello")]))
    Below is an instruction that describes a task. Write a response that appropriately completes the request.
    <BLANKLINE>
    ### Instruction:
    Say hello
    <BLANKLINE>
    ### Response:
    """

    end: str = ""
    kind: ClassVar[Kind] = "paper"
    adds_bos: ClassVar[bool] = False

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The sections of all turns, ending with the line "### Response:"."""
        has_input = any(message.input for message in messages)
        parts = [_PREAMBLE_WITH_INPUT if has_input else _PREAMBLE]
        for message in messages:
            if message.role == "system":
                parts[0] = message.content
            elif message.role == "user":
                context = f"\n\n### Input:\n{message.input}" if message.input else ""
                parts.append(f"\n\n### Instruction:\n{message.content}{context}\n\n### Response:\n")
            else:
                parts.append(self.response_text(message.content) + self.end)
        return "".join(parts)

    def response_text(self, text: str) -> str:
        """The text without outer white space."""
        return text.strip()


@dataclass(frozen=True)
class PlainTemplate:
    """No layout at all: the contents one after the other, for base models and text completion.

    >>> PlainTemplate().prompt_text([Message(role="user", content="Once upon")])
    'Once upon'
    """

    kind: ClassVar[Kind] = "plain"
    adds_bos: ClassVar[bool] = False

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The contents joined without a separator; an input follows its instruction after an empty line."""
        return "".join(_with_input(message) for message in messages)

    def response_text(self, text: str) -> str:
        """The text as it stands, white space included."""
        return text


class ChatTemplate:
    """The tokenizer's own chat template; `kwargs` are its variables (`enable_thinking`, `date_string`, ...).

    What templates do differently is found out once, by rendering a probe: a system message is folded into the first
    user turn where the template refuses or drops it; a template that ignores `add_generation_prompt` gets the header it
    writes before an answer; white space that it writes there belongs to the response. A template that prints the date
    always prints 26 July 2024. Responses lose outer white space, and a `<think>` that the header ends with already.
    `tail` is what is written after an answer, `unlearned` what is written before one and stands neither in the prompt
    nor in a response; `opens_thoughts`: the header ends with `<think>`. Raises `ConfigError` without a chat template.
    """

    kind: ClassVar[Kind] = "chat"
    adds_bos: ClassVar[bool] = True

    def __init__(self, tokenizer: Any, kwargs: Mapping[str, object] | None = None) -> None:
        if tokenizer.chat_template is None:
            raise ConfigError(
                "data.template is 'chat', but the tokenizer has no chat template.\n"
                "  use data.template=paper, or a model that was tuned for chat"
            )
        self._tokenizer = tokenizer
        self._kwargs = dict(kwargs or {})
        self._text = tokenizer.get_chat_template()
        if "strftime_now" in self._text:
            self._text = _FIXED_DATE + self._text
        self._takes_system = self._finds_system()
        self._header, self._lead, self.tail, self.unlearned = self._probe()
        self.opens_thoughts = self.prompt_text([Message(role="user", content="x")]).rstrip().endswith(_THOUGHTS)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The template's rendering with the generation prompt; `DataError` where it refuses the order of turns."""
        try:
            return self._render(self._turns(messages), opened=True) + self._header
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(
                f"the chat template refuses these turns ({roles}): {error}\n"
                f"  reorder them as the template wants, delete the row, or use data.template=paper"
            ) from error

    def response_text(self, text: str) -> str:
        """The text without outer white space, after what the template puts between header and answer."""
        said = text.strip()
        if self.opens_thoughts:
            said = said.removeprefix(_THOUGHTS).lstrip()
        return self._lead + said if said else ""

    def with_opening(self, drawn: str) -> str:
        """The text of an answer that was drawn behind the header, with the `<think>` that the header ends with."""
        return f"{_THOUGHTS}\n{drawn}" if self.opens_thoughts and drawn else drawn

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        turns = [
            {"role": m.role, "content": m.content.strip() if m.role == "assistant" else _with_input(m)}
            for m in messages
        ]
        if len(turns) > 1 and turns[0]["role"] == "system" and not self._takes_system:
            system, *turns = turns
            asked = next((turn for turn in turns if turn["role"] == "user"), turns[0])
            asked["content"] = f"{system['content']}\n\n{asked['content']}"
        return turns

    def _render(self, turns: list[dict[str, str]], *, opened: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            turns, chat_template=self._text, tokenize=False, add_generation_prompt=opened, **self._kwargs
        )
        return text

    def _finds_system(self) -> bool:
        turns = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
        try:
            return _PROBE in self._render(turns, opened=True)
        except TemplateError:
            return False

    def _probe(self) -> tuple[str, str, str, str]:
        """(header to add, white space before an answer, text after an answer, text before one that no row has)."""
        asked = [{"role": "user", "content": "x"}]
        try:
            opened, closed = self._render(asked, opened=True), self._render(asked, opened=False)
            whole = self._render([*asked, {"role": "assistant", "content": _PROBE}], opened=False)
        except TemplateError as error:
            raise ConfigError(
                f"the tokenizer's chat template cannot render a question and an answer: {error}\n"
                f"  check models.chat_template_kwargs, or use data.template=paper"
            ) from error
        before, found, tail = whole.partition(_PROBE)
        if not found:
            raise ConfigError("the tokenizer's chat template drops the answer; use data.template=paper")
        between = before.removeprefix(opened) if before.startswith(opened) else ""
        if not between.strip():
            return "", between, tail, ""
        return (between, "", tail, "") if opened == closed else ("", "", tail, between)


def choose_template(name: str, tokenizer: Any, kwargs: Mapping[str, object] | None = None) -> Template:
    """The template that `data.template` names; "auto" is the tokenizer's chat template, else the paper's layout.

    Raises `UnknownName` for another name; `ConfigError` for "chat" without a chat template, and for `kwargs` that no
    chat template would read.
    """
    known = ("auto", "chat", "paper", "plain")
    if name not in known:
        raise UnknownName.among("template", name, known, "data.template")
    if name == "chat" or (name == "auto" and tokenizer.chat_template is not None):
        return ChatTemplate(tokenizer, kwargs)
    if kwargs:
        raise ConfigError(
            f"chat_template_kwargs has {', '.join(kwargs)}, but no chat template is used.\n"
            f"  remove them, or set data.template=chat with a tokenizer that has one"
        )
    return PlainTemplate() if name == "plain" else PaperTemplate(end=tokenizer.eos_token or "")


def described(template: Template) -> str:
    r"""For printing: which layout it is, and what a chat template writes before an answer that rows do not have.

    >>> described(PlainTemplate())
    'template: plain'
    """
    between = template.unlearned if isinstance(template, ChatTemplate) else ""
    note = f"; {between!r}, which it writes before an answer, is not learned (see models.chat_template_kwargs)"
    return f"template: {template.kind}{note if between else ''}"


def end_of_turn(tokenizer: Any, template: Template) -> int:
    """The id that ends an assistant turn: the first special token after an answer in the chat template, else EOS.

    Raises `ModelError` where the tokenizer has neither.
    """
    if isinstance(template, ChatTemplate):
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        for token in tokenizer(template.tail, add_special_tokens=False, verbose=False)["input_ids"]:
            if token in special and tokenizer.decode([token]).strip():
                return int(token)
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no EOS token, so a response could never end; set tokenizer.eos_token")
    return int(tokenizer.eos_token_id)


def _with_input(message: Message) -> str:
    return f"{message.content}\n\n{message.input}" if message.input else message.content
