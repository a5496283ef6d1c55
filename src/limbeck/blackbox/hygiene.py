"""Rationales that must not be learned from although their answer is right: leaks, asides, no reasoning, drift, thoughts
that a server sends with the answer."""

from __future__ import annotations

import re

from limbeck.blackbox.items import Item

# Words of the situation in which a rationale was written; each is looked for in the question first.
_ASIDES = (
    r"the student'?s?\b",
    r"\byour (?:previous|earlier|last) (?:answer|attempt|solution|response)",
    r"\b(?:previous|earlier|last|prior) (?:answer|attempt|solution|rationale|explanation|response)s?\b",
    r"\b(?:a|the) score of\b",
    r"\bscored? (?:0|1|zero|one)\b",
    r"\b(?:the|a|this|given) hints?\b",
    r"\bhint(?:ed)?:",
    r"\b(?:gold|reference|correct) (?:answer|solution) (?:given|provided|shown|above)",
    r"\bas (?:an|a large) (?:ai|language model)\b",
)
_ANSWER = re.compile(r"####|\\boxed\{|\b(?:final )?answer\s*(?:is|:|=)", re.IGNORECASE)
# Some templates open the block in the prompt, so that only its end is in the answer.
_THOUGHTS = re.compile(r"(?:<think>)?(?:(?!<think>).)*?</think>", re.IGNORECASE | re.DOTALL)
_THOUGHT = re.compile(r"</?think>", re.IGNORECASE)
_GRAM = 8
_COPIED = 0.8
_LEAST_WORDS = 4


def refused(item: Item, text: str, *, hint: str = "none") -> str:
    """Why this rationale may not be learned from, in one word; "" where it may.

    "aside": it speaks of a student, an earlier answer, a score or a hint, where the question does not. "answer_first":
    the answer stands before any reasoning. "copied": with a solution as hint, more than 0.8 of its runs of 8 words are
    the gold solution's. "thinking": a block of thoughts that does not end, or stands behind the beginning. "control": a
    NUL character. The answer itself is the checker's business.

    >>> item = Item(id="1", question="6 times 7?", gold="42", kind="numeric", rationale="")
    >>> refused(item, "Six sevens: 6 * 7 = 42. #### 42"), refused(item, "#### 42 because 6 * 7 = 42 is well known")
    ('', 'answer_first')
    >>> refused(item, "The student multiplied badly. 6 * 7 = 42. #### 42")
    'aside'
    """
    asked, said = item.asked().lower(), text.lower()
    if "\0" in text:
        return "control"
    if _THOUGHT.search(text):
        return "thinking"
    for pattern in _ASIDES:
        if re.search(pattern, said) and not re.search(pattern, asked):
            return "aside"
    if _answers_first(text):
        return "answer_first"
    if hint == "solution" and item.rationale and overlap(text, item.rationale) > _COPIED:
        return "copied"
    return ""


def without_thoughts(text: str) -> str:
    """What is said behind a whole `<think>` block at the beginning, which a server that does not parse them sends too.

    >>> without_thoughts("<think>six, seven</think>\\n6 * 7 = 42"), without_thoughts("six, seven</think>6 * 7 = 42")
    ('6 * 7 = 42', '6 * 7 = 42')
    >>> without_thoughts("<think>six, seven"), without_thoughts("6 * 7 <think></think>= 42")
    ('<think>six, seven', '6 * 7 <think></think>= 42')
    """
    said = text.strip()
    found = _THOUGHTS.match(said)
    return said[found.end() :].strip() if found else said


def overlap(text: str, gold: str) -> float:
    """The share of a text's runs of 8 words that stand in the gold solution; 0 for a text of fewer words.

    >>> overlap("a b c d e f g h i", "a b c d e f g h"), overlap("a b", "a b")
    (0.5, 0.0)
    """
    mine, theirs = _grams(text), set(_grams(gold))
    return sum(gram in theirs for gram in mine) / len(mine) if mine else 0.0


def _answers_first(text: str) -> bool:
    """Whether the first place that says an answer has hardly a word before it and a reasoning after it."""
    found = _ANSWER.search(text)
    if found is None:
        return False
    before, after = text[: found.start()].split(), text[found.end() :].split()
    return len(before) < _LEAST_WORDS <= len(after) - 1


def _grams(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[first : first + _GRAM]) for first in range(len(words) - _GRAM + 1)]
