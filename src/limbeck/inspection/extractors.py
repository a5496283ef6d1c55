"""MGSR, arXiv 2407.10068: which spans there are, and how the fields of each extractor stand to the paper."""

from __future__ import annotations

from limbeck.inspection.readings import OTHERWISE, Fields, Reading
from limbeck.losses.correlation import Correlation
from limbeck.spans import Learned, Phrases, Sentences, SpacyPhrases, Whole, Window

_CHUNKER = "noun, verb and prepositional phrases from a chunker"

_ATTACHED = {
    True: Reading(
        "open",
        "prepositional phrases are named, not what is in them",
        "a chunker's PP is the preposition alone: one word, no pair; joined with its noun phrase it has pairs",
    ),
    False: Reading("open", "prepositional phrases are named, not what is in them", "the preposition alone"),
}

_MAX_WORDS = Reading(
    "open",
    "no limit is given",
    "one mistake of the parser may swallow a paragraph; longer phrases are split evenly",
)

EXTRACTED: Fields = {
    (Correlation, "extractor"): {
        Phrases: Reading(
            "differs",
            "“the pre-defined chunker” cites Kiss and Strunk 2006, which is Punkt: it finds sentences, no phrases",
            "the text wants noun, verb and prepositional phrases; textblob's chunker gives them offline",
        ),
        SpacyPhrases: Reading(
            "differs",
            "“the pre-defined chunker” cites Kiss and Strunk 2006, which is Punkt: it finds sentences, no phrases",
            "the phrases that the text wants, by a trained parser, in the languages that spaCy has",
        ),
        Sentences: Reading(
            "differs",
            "noun, verb and prepositional phrases, though the tool that is cited, Punkt, finds sentences",
            "the citation to the letter, by a rule that needs no training",
        ),
        Window: Reading("differs", _CHUNKER, "spans without grammar: what phrases add is the difference to it"),
        Whole: Reading("differs", _CHUNKER, "all neighbours of a response are pairs: the span loss without spans"),
        Learned: Reading("differs", _CHUNKER, "tokens that belong together by count, in any language and in code"),
        OTHERWISE: Reading("differs", _CHUNKER),
    },
    (Phrases, "attach_prepositions"): _ATTACHED,
    (Phrases, "max_words"): _MAX_WORDS,
    (SpacyPhrases, "pipeline"): Reading("open", "no tagger or parser is named", "the small English one of spaCy"),
    (SpacyPhrases, "attach_prepositions"): _ATTACHED,
    (SpacyPhrases, "max_words"): _MAX_WORDS,
    (Sentences, "max_words"): Reading(
        "open", "no limit is given", "a text without punctuation is not one span; most sentences are shorter"
    ),
    (Window, "size"): Reading("open", "windows are not in the paper", "about as many tokens as a longer phrase has"),
    (Learned, "threshold"): Reading(
        "open", "collocations are not in the paper", "a share of 0 to 1 of the strongest bond there can be"
    ),
    (Learned, "min_count"): Reading(
        "open", "collocations are not in the paper", "NPMI is near 1 for pairs that were seen once or twice by chance"
    ),
    (Learned, "max_tokens"): Reading("open", "no limit is given", "about as many tokens as a longer phrase has"),
}
