"""A tokenizer's vocabulary as bytes, for what must know where tokens lie in the text without knowing tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from limbeck.errors import ConfigError
from limbeck.spans.pieces import TokenPieces

_MARK = "▁"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SAMPLE = "The 2nd  café: 北京, it's “fine” 😀.\n\tx = [1, 2]"


def token_pieces(tokenizer: PreTrainedTokenizerBase) -> TokenPieces:
    """The bytes of each token, for byte-level BPE (GPT-2, LLaMA 3, Qwen) and SentencePiece (LLaMA 2, Gemma, T5).

    Byte-level BPE writes each byte as one letter. SentencePiece writes a space as ▁, and a byte that is in no token as
    `<0xAB>`; the space at the beginning of a text is dropped if the tokenizer does so. Special tokens and ids without
    a token stand for no text; other added tokens stand for what they say, and so does a word that serves as padding.
    Raises `ConfigError` for a tokenizer whose tokens do not add up to the text that it decodes, such as WordPiece.

    >>> from limbeck.testing import byte_tokenizer
    >>> pieces = token_pieces(byte_tokenizer())
    >>> pieces.text_of([72, 0xC3, 0xA9, 258]), pieces.is_special(258)
    (('Hé', ((0, 1), (1, 2), (1, 2), (2, 2))), True)
    """
    added = tokenizer.added_tokens_decoder
    tokens = {id: token for token, id in tokenizer.get_vocab().items()}
    special = special_ids(tokenizer)
    regular = {id: token for id, token in tokens.items() if id not in special and id not in added}
    of_token: Callable[[str], bytes]
    of_added: Callable[[str], bytes]
    if _is_byte_level(tokenizer, regular.values()):
        of_token, of_added, drops = _byte_level(), lambda token: token.encode(), False
    elif _is_sentencepiece(tokenizer, regular.values()):
        of_token, of_added, drops = _sentencepiece, _sentencepiece, _drops_first_space(tokenizer, regular)
    else:
        raise _refusal(tokenizer, "its tokens are neither byte-level nor SentencePiece's")
    piece_of = {id: of_token(token) for id, token in regular.items()}
    piece_of |= {id: of_added(token.content) for id, token in added.items() if id not in special}
    count = max(tokens, default=-1) + 1
    pieces = TokenPieces(
        pieces=tuple(piece_of.get(id, b"") for id in range(count)), special=special, drops_first_space=drops
    )
    ids = tokenizer.encode(_SAMPLE, add_special_tokens=False)
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if pieces.text_of(ids)[0] != decoded:
        raise _refusal(tokenizer, f"its tokens give {pieces.text_of(ids)[0]!r} where it decodes {decoded!r}")
    return pieces


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that stand for no text, with any tokenizer: special tokens, the end of a text, and ids without a token.

    >>> from limbeck.testing import byte_tokenizer
    >>> sorted(special_ids(byte_tokenizer()))
    [256, 257, 258, 259, 260]
    """
    added = tokenizer.added_tokens_decoder
    known = set(tokenizer.get_vocab().values())
    special = {id for id, token in added.items() if token.special} | ({tokenizer.eos_token_id} & known)
    return frozenset({*range(max(known, default=-1) + 1)} - (known - special))


def _is_byte_level(tokenizer: PreTrainedTokenizerBase, tokens: Collection[str]) -> bool:
    steps = _decoding_steps(tokenizer)
    if steps is not None:
        return any(step["type"] == "ByteLevel" for step in steps)
    return _byte_of_letter().keys() <= set(tokens)


def _is_sentencepiece(tokenizer: PreTrainedTokenizerBase, tokens: Collection[str]) -> bool:
    steps = _decoding_steps(tokenizer)
    if steps is not None:
        replaced = [(step["pattern"], step["content"]) for step in steps if step["type"] == "Replace"]
        return any(step["type"] == "Metaspace" for step in steps) or ({"String": _MARK}, " ") in replaced
    return any(token.startswith(_MARK) for token in tokens)


def _decoding_steps(tokenizer: PreTrainedTokenizerBase) -> list[dict[str, object]] | None:
    """The steps of the `tokenizers` library's decoder; None for a tokenizer in Python, which does not state its own."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    if backend.decoder is None:
        return []
    decoder = json.loads(backend.decoder.__getstate__())
    steps: list[dict[str, object]] = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return steps


def _byte_level() -> Callable[[str], bytes]:
    """From a token's letters to its bytes; a token with any other letter stands for itself, as the decoder has it."""
    byte_of = _byte_of_letter()

    def of_token(token: str) -> bytes:
        known = byte_of.keys() >= set(token)
        return bytes(byte_of[letter] for letter in token) if known else token.encode()

    return of_token


class TokenTexts:
    """Single tokens as text, with their spaces and line breaks; special ones by name.

    `tokenizer.decode([id])` would leave out what stands at the edge of a text. Bytes that are no character by
    themselves become U+FFFD.

    >>> from limbeck.testing import byte_tokenizer
    >>> texts = TokenTexts(byte_tokenizer())
    >>> texts(32), texts(10), texts(260)
    (' ', '\\n', '<end>')
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def _pieces(self) -> TokenPieces | None:
        try:
            return token_pieces(self._tokenizer)
        except ConfigError:
            return None

    def __call__(self, id: int) -> str:
        """The text of one token."""
        if self._pieces is None or self._pieces.is_special(id):
            return str(self._tokenizer.convert_ids_to_tokens(id))
        return self._pieces.pieces[id].decode(errors="replace")


def _byte_of_letter() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for: printable bytes are their own, the rest come after 255.

    GPT-2's table (Radford et al. 2019, `bytes_to_unicode`).
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _sentencepiece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_MARK, " ").encode()


def _drops_first_space(tokenizer: PreTrainedTokenizerBase, tokens: Mapping[int, str]) -> bool:
    """Whether the tokenizer decodes "▁word" at the beginning of a text without a space."""
    words = [id for id, token in tokens.items() if token.startswith(_MARK) and token.strip(_MARK)]
    return bool(words) and not tokenizer.decode([min(words)], clean_up_tokenization_spaces=False).startswith(" ")


def _refusal(tokenizer: PreTrainedTokenizerBase, why: str) -> ConfigError:
    return ConfigError(
        f"spans cannot be found with the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}: {why}."
        "\n  Spans need byte-level BPE (as GPT-2, LLaMA 3, Qwen) or SentencePiece (as LLaMA 2, Gemma)."
        "\n  Take models with such a tokenizer, or a method without a span term."
    )
