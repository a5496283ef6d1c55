"""A tokenizer of 256 bytes and five special tokens, built in memory: a token's id is the value of its byte."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<turn>", "<end>")

# Roles are cut to one letter so that prompts stay short enough for a model of 256 positions. `brief` is there to test
# that a template's keyword arguments arrive; a turn ends in <end>, which is not the tokenizer's <eos>.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% if brief is defined and brief %}<turn>s:Be brief.<end>{% endif %}"
    "{% for message in messages %}<turn>{{ message['role'][0] }}:{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>a:{% endif %}"
)


def byte_tokenizer(
    *, chat: bool = True, pad: bool = True, adds_bos: bool = False, extra_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of 261 tokens: the bytes, then 256 `<pad>`, `<bos>`, `<eos>`, `<turn>`, 260 `<end>`.

    `chat`: with `CHAT_TEMPLATE` (else the tokenizer has none). `pad`: `<pad>` is the padding token (else there is
    none, as in GPT-2). `adds_bos`: encoding puts `<bos>` in front, as LLaMA does. `extra_tokens`: further special
    tokens from id 261 on.

    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("Hi<end>"), tokenizer.decode([72, 105])
    ([72, 105, 260], 'Hi')
    """
    alphabet = _byte_letters()
    tokenizer = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = [*SPECIAL_TOKENS, *extra_tokens]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 257)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>" if pad else None,
        extra_special_tokens=["<turn>", "<end>", *extra_tokens],
        clean_up_tokenization_spaces=False,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def _byte_letters() -> list[str]:
    """The printable letter that byte-level BPE writes for each byte 0-255 (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]
