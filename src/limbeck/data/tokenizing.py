"""Examples to token ids and back: the one place where prompts and responses are encoded.

Training, rollouts and evaluation all read `Encoder.prompt`; a training row begins with exactly those tokens. Which
tokens are a response is known from how the row is put together, never from an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from limbeck.data.cutting import shortened
from limbeck.data.encoding_report import EncodingReport
from limbeck.data.templates import ChatTemplate, Template, end_of_turn
from limbeck.errors import ConfigError, DataError, NothingToLearn
from limbeck.records import EncodedRow, Example, Message

_TOGETHER = 1_000


class Encoder:
    """Turns examples into token ids with one tokenizer and one template.

    `long_prompt`: what happens to a prompt over `max_prompt` tokens; "drop" leaves the row out, "cut" shortens the
    user's text. `max_length` bounds prompt and response together. `train_on="all"` marks every assistant turn as
    response, "last" only the last. `report` counts what `row` did. Raises `ConfigError` where `max_prompt` leaves no
    room for a response.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        *,
        max_prompt: int = 256,
        max_length: int = 512,
        long_prompt: Literal["drop", "cut"] = "drop",
        train_on: Literal["last", "all"] = "last",
    ) -> None:
        if not 1 <= max_prompt < max_length:
            raise ConfigError(
                f"data.max_prompt is {max_prompt} and data.max_length {max_length}, which counts the prompt too.\n"
                f"  allowed: 1 <= max_prompt < max_length"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.max_prompt, self.max_length = max_prompt, max_length
        self.long_prompt, self.train_on = long_prompt, train_on
        self.report = EncodingReport()
        self.end_id = end_of_turn(tokenizer, template)
        self._end_text: str = tokenizer.convert_ids_to_tokens(self.end_id)
        self._bos = [] if template.adds_bos else _bos(tokenizer)
        self._opens_thoughts = isinstance(template, ChatTemplate) and template.opens_thoughts
        self._ahead: dict[str, list[int]] = {}
        # With GPT-2's tokenizer the end of a text serves for unknown text too, of which it has none.
        self._unknown = {tokenizer.unk_token_id} - {None, self.end_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
        self._control = {token for token in (*tokenizer.all_special_tokens, self._end_text) if token}

    def prompt(self, example: Example) -> tuple[int, ...]:
        """The tokens up to the first token of the response, BOS and response header included.

        Under "cut" at most `max_prompt` of them; under "drop" an over-long prompt comes back whole, so that evaluation
        can still ask it. Raises `DataError` where the template and system message alone are too long to cut to.
        """
        return tuple(self._prompt(example)[0].tokens)

    def row(self, example: Example, response: str | None = None) -> EncodedRow | None:
        """The training row for a response (the first reference if None); None where the prompt is dropped.

        The end-of-turn token closes the response and is one of its tokens; a response cut at `max_length` has none.
        """
        text = self.template.response_text(example.references[0] if response is None else response)
        writer, was_cut = self._prompt(example)
        report = self.report
        if len(writer.tokens) > self.max_prompt:
            report.dropped_prompts += 1
            report.dropped_ids.append(example.id)
            return None
        prompt = tuple(writer.tokens)
        writer.add(text, is_response=True)
        tokens = [*writer.tokens, self.end_id][: self.max_length]
        flags = [*writer.is_response, True][: self.max_length]
        if self.train_on == "last":
            flags[: len(prompt)] = [False] * len(prompt)
        cut = len(writer.tokens) >= self.max_length
        report.rows += 1
        report.cut_prompts += was_cut
        report.cut_responses += cut
        report.cut_ids += [example.id] if cut or was_cut else []
        report.boundary_merges += writer.merges
        report.control_tokens += self._spells_control(example, text)
        report.unknown_tokens += not self._unknown.isdisjoint(tokens)
        report.open_thoughts += self._opens_thoughts and "</think>" not in text
        report.prompt_lengths.append(len(prompt))
        report.response_lengths.append(len(tokens) - len(prompt))
        return EncodedRow(id=example.id, prompt=prompt, tokens=tuple(tokens), is_response=tuple(flags), cut=cut)

    def rows(self, examples: Iterable[Example]) -> tuple[EncodedRow, ...]:
        """The rows of all examples that are kept; `NothingToLearn` where none is."""
        kept: list[EncodedRow] = []
        every = list(examples)
        for first in range(0, len(every), _TOGETHER):
            group = every[first : first + _TOGETHER]
            self._read_ahead(group)
            kept += [row for example in group if (row := self.row(example)) is not None]
        self._ahead.clear()
        encoded = tuple(kept)
        if not encoded:
            raise NothingToLearn(
                f"no row is left: all {self.report.dropped_prompts} prompts are longer than data.max_prompt"
                f" = {self.max_prompt}.\n  raise data.max_prompt, or set data.long_prompt=cut"
            )
        return encoded

    def _read_ahead(self, examples: Sequence[Example]) -> None:
        """Encode in one call what the rows of these examples will ask for: the tokenizer takes a batch on all cores."""
        texts: set[str] = set()
        for example in examples:
            # What is wrong with a row is said when it is its turn.
            with suppress(DataError):
                text = ""
                for piece, _ in self._segments(example.messages):
                    text += piece
                    texts.add(text)
                texts.add(text + self.template.response_text(example.references[0]))
        ordered = sorted(texts)
        self._ahead.clear()
        self._ahead |= dict(zip(ordered, _encoded(self.tokenizer, ordered), strict=True))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these ids without special and end-of-turn tokens and without outer white space."""
        kept = [token for token in tokens if token != self.end_id]
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()

    def _prompt(self, example: Example) -> tuple[_Writer, bool]:
        try:
            writer = self._write(example.messages)
            if len(writer.tokens) <= self.max_prompt or self.long_prompt == "drop":
                return writer, False
            messages = shortened(example.messages, excess=self._excess)
        except DataError as error:
            raise DataError(f"{error}\n  in {example.source or example.id}") from error
        if messages is None:
            raise DataError(
                f"the template and the system message alone are longer than data.max_prompt = {self.max_prompt}.\n"
                f"  raise data.max_prompt, or set data.long_prompt=drop (limbeck evaluate: raise --max-prompt)\n"
                f"  in {example.source or example.id}"
            )
        return self._write(messages), True

    def _excess(self, messages: Sequence[Message]) -> int:
        return len(self._write(messages).tokens) - self.max_prompt

    def _write(self, messages: Sequence[Message]) -> _Writer:
        writer = _Writer(self.tokenizer, self._bos, self._ahead)
        for text, is_response in self._segments(messages):
            writer.add(text, is_response=is_response)
        return writer

    def _segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The prompt's text in pieces, alternately not and by the assistant (its end of turn included).

        Earlier answers are encoded as pieces of their own whatever `train_on` says, just as the last one is, so that
        the tokens do not depend on what is learned.
        """
        text = self.template.prompt_text(messages)
        segments: list[tuple[str, bool]] = []
        done = 0
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            if not index and self.template.kind == "chat":
                return self._in_one_piece(text, "the conversation opens with an assistant turn, without a header")
            head = self.template.prompt_text(messages[:index])
            said = head + self.template.response_text(message.content)
            if not text.startswith(said):
                return self._in_one_piece(text, "the chat template rewrites earlier assistant turns")
            rest = text[len(said) :]
            gap = len(rest) - len(rest.lstrip())
            end = len(said) + (gap + len(self._end_text) if rest[gap:].startswith(self._end_text) else 0)
            segments += [(text[done : len(head)], False), (text[len(head) : end], True)]
            done = end
        return [*segments, (text[done:], False)]

    def _in_one_piece(self, text: str, why: str) -> list[tuple[str, bool]]:
        if self.train_on == "all":
            raise DataError(f"data.train_on is 'all', but {why}.\n  use data.train_on=last, or data.template=paper")
        return [(text, False)]

    def _spells_control(self, example: Example, response: str) -> bool:
        texts = [response, *(part for message in example.messages for part in (message.content, message.input))]
        return any(token in text for text in texts for token in self._control)


class _Writer:
    """Tokens of a row, piece by piece; a piece never changes the tokens before it."""

    def __init__(self, tokenizer: Any, first: Sequence[int], ahead: Mapping[str, list[int]]) -> None:
        self.tokens: list[int] = list(first)
        self.is_response: list[bool] = [False] * len(self.tokens)
        self.merges = 0
        self._tokenizer = tokenizer
        self._ahead = ahead
        self._text = ""
        self._encoded: list[int] = []

    def add(self, text: str, *, is_response: bool) -> None:
        """Append a piece of text, all of it learned or none."""
        # Encoding in context first: apart, a SentencePiece tokenizer would put a space before every piece.
        whole = self._encode(self._text + text)
        done = len(self._encoded)
        if whole[:done] == self._encoded:
            added = whole[done:]
            self._text, self._encoded = self._text + text, whole
        else:
            added = self._encode(text)
            self._text, self._encoded = text, added
            self.merges += 1
        self.tokens += added
        self.is_response += [is_response] * len(added)

    def _encode(self, text: str) -> list[int]:
        return self._ahead.get(text) or _encoded(self._tokenizer, [text])[0]


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, nothing added."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return ids


def _bos(tokenizer: Any) -> list[int]:
    """[BOS] where this tokenizer begins a text with it by default, else nothing."""
    begins = tokenizer("a")["input_ids"][:1]
    return [tokenizer.bos_token_id] if begins == [tokenizer.bos_token_id] else []
