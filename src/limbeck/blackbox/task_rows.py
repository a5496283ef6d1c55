"""Rows of public data sets, as the hub has them, in the one form that `read_row` takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.errors import DataError
from limbeck.spans.sentences import Sentences

Row = Mapping[str, Any]

_MARK = re.compile(r"<<([^<>=]+)=([^<>]+)>>")
_LONG = 200


def from_gsm8k(row: Row) -> dict[str, Any]:
    """A row of openai/gsm8k: the calculator's marks become `steps`, the lines before #### `rationale`.

    >>> from_gsm8k({"question": "?", "answer": "He has 2+3=<<2+3=5>>5.\\n#### 5"})
    {'question': '?', 'answer': '5', 'rationale': 'He has 2+3=5.', 'steps': ['2+3=5']}
    """
    solution, marker, answer = str(row["answer"]).rpartition("####")
    if not marker:
        raise DataError(f"the solution has no '####': {str(row['answer'])[:80]!r}")
    steps = [f"{expression.strip()}={value.strip()}" for expression, value in _MARK.findall(solution)]
    return {
        "question": row["question"],
        "answer": answer.strip().replace(",", ""),
        "rationale": _MARK.sub("", solution).strip(),
        "steps": steps,
    }


def from_svamp(row: Row) -> dict[str, Any]:
    """A row of ChilleD/SVAMP: body and question in one, the answer without ".0".

    >>> row = {"ID": "7", "Body": "Ann has 3", "Question": "Left?", "Equation": "( 3.0 - 1.0 )", "Answer": "2.0"}
    >>> from_svamp(row)
    {'question': 'Ann has 3. Left?', 'answer': '2', 'equation': '( 3.0 - 1.0 )', 'id': 'svamp-7'}
    """
    body = str(row["Body"]).strip()
    body = body if body.endswith((".", "!", "?")) else f"{body}."
    return {
        "question": f"{body} {str(row['Question']).strip()}",
        "answer": re.sub(r"\.0+$", "", str(row["Answer"]).strip()),
        "equation": str(row["Equation"]).strip(),
        "id": f"svamp-{row['ID']}",
    }


def from_strategyqa(row: Row) -> dict[str, Any]:
    """A row of ChilleD/StrategyQA: facts as a list, whether they are one there or a text.

    >>> from_strategyqa({"qid": "7", "question": "Is it?", "answer": True, "facts": "It is so. It was so."})["facts"]
    ['It is so.', 'It was so.']
    """
    given = row.get("facts") or ""
    facts = sentences_of(given) if isinstance(given, str) else [str(fact) for fact in given]
    return {
        "question": row["question"],
        "answer": "yes" if row["answer"] in (True, "yes", "true", "True") else "no",
        "rationale": " ".join(facts),
        "facts": facts,
        "id": f"strategyqa-{row['qid']}",
    }


def from_choices(row: Row) -> dict[str, Any]:
    """A row of tau/commonsense_qa or allenai/ai2_arc: labels and texts in two lists.

    >>> choices = {"label": ["A", "B"], "text": ["barn", "moon"]}
    >>> from_choices({"id": "q", "question": "Where?", "choices": choices, "answerKey": "A"})["choices"][1]
    {'label': 'B', 'text': 'moon'}
    """
    texts = zip(row["choices"]["label"], row["choices"]["text"], strict=True)
    return {
        "question": row["question"],
        "answer": row["answerKey"],
        "choices": [{"label": label, "text": text} for label, text in texts],
        "id": str(row["id"]),
    }


def sentences_of(text: str) -> list[str]:
    """A text's sentences, by the rule of `limbeck.spans.Sentences`; a text without marks is one."""
    split = Sentences(max_words=_LONG)
    found: Sequence[str] = [text[start:end].strip() for start, end in split(text)]
    return [sentence for sentence in found if sentence]
