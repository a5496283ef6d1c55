from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from limbeck.spans import TokenPieces
from reference import spans as reference

EMOJI = "😀".encode()


def pieces_of(*parts: bytes, special: frozenset[int] = frozenset(), drops: bool = False) -> TokenPieces:
    return TokenPieces(pieces=parts, special=special, drops_first_space=drops)


def test_white_space_before_a_word_is_not_the_tokens_own() -> None:
    vocabulary = pieces_of(b"The", b" old", b"\n\tcat", b"s")
    assert vocabulary.text_of([0, 1, 2, 3]) == ("The old\n\tcats", ((0, 3), (4, 7), (9, 12), (12, 13)))


def test_white_space_inside_and_after_a_word_is_the_tokens_own() -> None:
    assert pieces_of(b" a b ").text_of([0]) == (" a b ", ((1, 5),))


def test_a_token_of_white_space_alone_keeps_it() -> None:
    assert pieces_of(b"in", b" ", b"1", b"2").text_of([0, 1, 2, 3]) == ("in 12", ((0, 2), (2, 3), (3, 4), (4, 5)))


def test_tokens_with_a_part_of_a_character_get_the_character() -> None:
    vocabulary = pieces_of(b"a " + EMOJI[:1], EMOJI[1:3], EMOJI[3:] + b"!", "é".encode())
    assert vocabulary.text_of([0, 1, 2, 3]) == ("a 😀!é", ((0, 3), (2, 3), (2, 4), (4, 5)))


def test_a_character_cut_off_is_one_replacement_and_what_follows_stays_in_place() -> None:
    vocabulary = pieces_of(EMOJI[:2], EMOJI[2:3], b" b", b"\xff", "é".encode())
    assert vocabulary.text_of([0, 1]) == ("\ufffd", ((0, 1), (0, 1)))
    assert vocabulary.text_of([0, 2, 3, 3, 4]) == ("\ufffd b\ufffd\ufffdé", ((0, 1), (2, 3), (3, 4), (4, 5), (5, 6)))


def test_special_tokens_stand_for_no_text() -> None:
    vocabulary = pieces_of(b"one", b"</s>", b"two", special=frozenset({1}))
    assert vocabulary.text_of([1, 0, 1, 2, 1]) == ("onetwo", ((0, 0), (0, 3), (3, 3), (3, 6), (6, 6)))
    assert [vocabulary.is_special(id) for id in range(3)] == [False, True, False]


def test_one_space_is_dropped_at_the_beginning_of_the_text() -> None:
    vocabulary = pieces_of(b"", b" one", b" ", b"  two", special=frozenset({0}), drops=True)
    assert vocabulary.text_of([0, 1, 1]) == ("one one", ((0, 0), (0, 3), (4, 7)))
    assert vocabulary.text_of([2, 1]) == (" one", ((0, 0), (1, 4)))
    assert vocabulary.text_of([3]) == (" two", ((1, 4),))
    assert vocabulary.text_of([0]) == ("", ((0, 0),))


def test_no_tokens_are_no_text() -> None:
    assert pieces_of(b"a").text_of([]) == ("", ())


some_bytes = st.one_of(
    st.text(alphabet="a \n\xa0é漢😀\ufffd", max_size=3).map(str.encode),
    st.binary(max_size=3),
    st.sampled_from([EMOJI[:1], EMOJI[1:], EMOJI[:3], b"\xc3", b"\xa9", b"\xe0\x80", b"\xed\xa0\x80", b"\xf4\x90"]),
)


@given(st.lists(some_bytes, max_size=12))
def test_text_and_intervals_are_the_references(tokens: list[bytes]) -> None:
    text, intervals = pieces_of(*tokens).text_of(range(len(tokens)))
    assert (text, list(intervals)) == reference.text_of(tokens)
    assert text == b"".join(tokens).decode("utf-8", errors="replace")


@given(st.lists(some_bytes.filter(bool), max_size=12), st.data())
def test_special_tokens_move_nothing(tokens: list[bytes], data: st.DataObject) -> None:
    vocabulary = pieces_of(*tokens, b"", special=frozenset({len(tokens)}))
    ids = list(range(len(tokens)))
    place = data.draw(st.integers(0, len(ids)))
    text, intervals = vocabulary.text_of(ids)
    with_special = vocabulary.text_of([*ids[:place], len(tokens), *ids[place:]])
    assert with_special[0] == text
    assert with_special[1][:place] + with_special[1][place + 1 :] == intervals
    assert with_special[1][place][0] == with_special[1][place][1]
