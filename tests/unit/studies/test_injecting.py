"""Errors of known kind and place: each kind puts in what it says, and the place is where the tokens differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from limbeck.errors import UnknownName
from limbeck.models.pieces import token_pieces
from limbeck.studies.error_kinds import ERROR_KINDS, Edit
from limbeck.studies.injecting import Injection, changed_tokens, inject
from limbeck.testing import byte_tokenizer

TEXT = "In 1969 the crew of Apollo flew to the Moon. Neil Armstrong was 38 then, and it did last 8 days for them."
OTHERS = ("Bread was baked in Egypt with 4 kinds of grain, says Lucas.", "Ships can carry more than carts ever will.")
KINDS = tuple(ERROR_KINDS)


@cache
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose tokens are mostly whole words with their space, so that a word is one token."""
    words = re.findall(r"\S+", " ".join((TEXT, *OTHERS)) + " not Egypt Lucas")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    merges = []
    for word in sorted({re.sub(r"\W", "", word) for word in words}):
        whole = "Ġ"
        for letter in word:
            if whole + letter not in vocabulary:
                vocabulary[whole + letter] = len(vocabulary)
                merges.append((whole, letter))
            whole += letter
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@cache
def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Words that carry a ▁, letters, and bytes for the rest; the first word's space is dropped."""
    words = sorted({re.sub(r"\W", "", word) for word in (TEXT + " " + " ".join(OTHERS) + " not").split()})
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(f"▁{word}" for word in words)]
    letters = sorted({letter for word in words for letter in word} | set(".,") | set("0123456789"))
    scored = [(piece, -float(place)) for place, piece in enumerate([*pieces, *letters])]
    scored = [(piece, 0.0 if piece.startswith("▁") and len(piece) > 1 else -9.0) for piece, _ in scored]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="first")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS: dict[str, Any] = {
    "bytes": byte_tokenizer,
    "words": word_tokenizer,
    "sentencepiece": sentencepiece_tokenizer,
}


def ids_of(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def injected(
    tokenizer: Any, ids: Sequence[int], kind: str, *, seed: int = 0, most: int = 10_000, others: Sequence[str] = OTHERS
) -> Injection | None:
    return inject(
        ids,
        kind=kind,
        pieces=token_pieces(tokenizer),
        encode=lambda text: ids_of(tokenizer, text),
        others=others,
        draw=np.random.default_rng(seed),
        most=most,
    )


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_place_is_where_the_tokens_first_differ_and_the_rest_is_the_clean_text(name: str, kind: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids, texts = ids_of(tokenizer, TEXT), set()
    for seed in range(8):
        found = injected(tokenizer, ids, kind, seed=seed)
        assert found is not None
        assert found.kind == kind
        place, end, tokens = found.place, found.end, list(found.tokens)
        assert 0 < place < end <= len(tokens)
        assert tokens[:place] == ids[:place]
        assert place == len(ids) or tokens[place] != ids[place]
        assert tokens[end:] == ids[len(ids) - (len(tokens) - end) :]
        texts.add(tokenizer.decode(tokens))
    assert TEXT not in texts
    assert len(texts) > 1, "the place is drawn"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("seed", range(6))
def test_each_kind_puts_in_what_it_says(name: str, seed: int) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = ids_of(tokenizer, TEXT)
    said = {}
    for kind in KINDS:
        found = injected(tokenizer, ids, kind, seed=seed)
        assert found is not None
        said[kind] = tokenizer.decode(list(found.tokens))
    clean = words_of(TEXT)
    loop = words_of(said["repetition"])
    assert any(loop[at : at + 4] == loop[at + 4 : at + 8] == loop[at + 8 : at + 12] for at in range(len(loop) - 11))
    assert len(loop) == len(clean) + 8
    numbers, before = re.findall(r"\d+", said["number"]), re.findall(r"\d+", TEXT)
    assert [len(each) for each in numbers] == [len(each) for each in before]
    changed = [(new, old) for new, old in zip(numbers, before, strict=True) if new != old]
    assert len(changed) == 1
    assert sum(a != b for a, b in zip(*changed[0], strict=True)) == 1
    assert re.sub(r"\d+", "#", said["number"]) == re.sub(r"\d+", "#", TEXT)
    swapped = [(new, old) for new, old in zip(words_of(said["name"]), clean, strict=True) if new != old]
    assert len(swapped) == 1
    assert swapped[0][0] in {"Egypt", "Lucas"}
    assert swapped[0][1] in {"Apollo", "Moon", "Armstrong"}
    denied = words_of(said["negation"])
    at = denied.index("not")
    assert [*denied[:at], *denied[at + 1 :]] == clean
    assert denied[at - 1] in {"was", "did"}
    off = words_of(said["drift"])
    assert len(off) == len(clean)
    differing = [at for at, (new, old) in enumerate(zip(off, clean, strict=True)) if new != old]
    stretch = " ".join(off[differing[0] : differing[-1] + 1])
    assert any(stretch in " ".join(words_of(other)) for other in OTHERS)
    assert differing[0] >= 1
    assert differing[-1] - differing[0] < 8


def test_a_word_that_is_one_token_is_a_place_of_one_token() -> None:
    tokenizer = word_tokenizer()
    found = injected(tokenizer, ids_of(tokenizer, "In it was so."), "negation")
    assert found is not None
    assert (found.place, found.end) == (len(ids_of(tokenizer, "In it was")), len(ids_of(tokenizer, "In it was not")))
    assert len(ids_of(tokenizer, " not")) == found.end - found.place == 1


def test_what_was_drawn_is_kept_even_where_encoding_the_text_would_give_other_ids() -> None:
    tokenizer = word_tokenizer()
    # "the" letter by letter, as a student may draw it.
    spelled = [*ids_of(tokenizer, "In"), *ids_of(tokenizer, " "), *ids_of(tokenizer, "the")]
    drawn = [*spelled, *ids_of(tokenizer, " crew was there")]
    assert ids_of(tokenizer, tokenizer.decode(drawn)) != drawn
    found = injected(tokenizer, drawn, "negation")
    assert found is not None
    assert list(found.tokens[: found.place]) == drawn[: found.place]
    assert tokenizer.decode(list(found.tokens)) == "In the crew was not there"


@pytest.mark.parametrize(
    ("kind", "text", "others"),
    [
        ("number", "No digits at all here.", OTHERS),
        ("number", "7 stands first, and a B2B is no number.", OTHERS),
        ("name", "Only the first word is large. So it is.", OTHERS),
        ("name", "They met Paul there.", ("No one here.",)),
        ("name", "They met Paul there.", ()),
        ("negation", "It is not so, and was never.", OTHERS),
        ("negation", "Birds sing.", OTHERS),
        ("repetition", "Three words only.", OTHERS),
        ("drift", "All of it.", OTHERS),
        ("drift", "This is a long text with words.", ("Short.",)),
        ("drift", "This is a long text with words.", ()),
        *((kind, "", OTHERS) for kind in KINDS),
    ],
)
def test_where_there_is_nothing_to_spoil_nothing_is_made_up(kind: str, text: str, others: tuple[str, ...]) -> None:
    tokenizer = byte_tokenizer()
    assert injected(tokenizer, ids_of(tokenizer, text), kind, others=others) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_ends_within_the_length_limit(kind: str) -> None:
    tokenizer = byte_tokenizer()
    ids = ids_of(tokenizer, TEXT)
    found = injected(tokenizer, ids, kind, most=70)
    if found is not None:
        assert len(found.tokens) <= 70
        assert found.end <= 70
    assert injected(tokenizer, ids, kind, most=3) is None


def test_special_tokens_stay_where_they_are() -> None:
    tokenizer = byte_tokenizer()
    ids = [*ids_of(tokenizer, "It is so"), 260]
    found = injected(tokenizer, ids, "negation")
    assert found is not None
    assert found.tokens[-1] == 260
    assert tokenizer.decode(list(found.tokens)) == "It is not so<end>"


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="negation"):
        injected(byte_tokenizer(), [65, 66], "negatoin")


@given(
    st.text(alphabet="ab1 .IAé北\n😀", max_size=60),
    st.lists(st.text(alphabet="ab1 .IA", max_size=40), max_size=3),
    st.sampled_from(KINDS),
    st.integers(0, 99),
)
def test_any_text_gives_an_error_whose_place_is_true_or_none(
    text: str, others: list[str], kind: str, seed: int
) -> None:
    tokenizer = byte_tokenizer()
    ids = ids_of(tokenizer, text)
    found = injected(tokenizer, ids, kind, seed=seed, others=others)
    edits = list(ERROR_KINDS[kind](text, others, np.random.default_rng(seed)))
    assert (found is None) == (not any(edit.start > 0 for edit in edits))
    if found is not None:
        assert tokenizer.decode(list(found.tokens)) in {edit.applied(text) for edit in edits}
        assert list(found.tokens[: found.place]) == ids[: found.place]
        assert found.place == len(ids) or found.tokens[found.place] != ids[found.place]


@given(st.lists(st.integers(0, 2), max_size=8), st.integers(0, 8), st.integers(0, 8), st.lists(st.integers(0, 2)))
def test_changed_tokens_are_between_the_common_ends(clean: list[int], a: int, b: int, new: list[int]) -> None:
    first, last = sorted((min(a, len(clean)), min(b, len(clean))))
    changed = [*clean[:first], *new, *clean[last:]]
    place, end = changed_tokens(clean, changed)
    assert clean[:place] == changed[:place]
    assert changed[end:] == (clean[-(len(changed) - end) :] if end < len(changed) else [])
    assert place <= end
    assert (place == end == len(clean)) == (clean == changed) or len(changed) < len(clean) or place < end


@pytest.mark.parametrize("kind", KINDS)
def test_edits_are_a_matter_of_the_generator(kind: str) -> None:
    def edits(seed: int) -> list[Edit]:
        return list(ERROR_KINDS[kind](TEXT, OTHERS, np.random.default_rng(seed)))

    assert edits(3) == edits(3)
    assert any(edits(3) != edits(seed) for seed in range(4, 9))
