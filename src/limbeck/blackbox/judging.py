"""What is said about a text that answers a question: right or wrong, and the class of its error."""

from __future__ import annotations

from limbeck.blackbox.checkers import CHECKERS, Verdict
from limbeck.blackbox.diagnosing import diagnose
from limbeck.blackbox.items import Item


def judged(item: Item, text: str, *, finish: str = "stop") -> tuple[Verdict, str]:
    """The checker's verdict, and the class of the error as rules can tell it (`diagnose`): "" for a right answer.

    >>> item = Item(id="1", question="6 times 7?", gold="42", kind="numeric")
    >>> judged(item, "#### 42")[1], judged(item, "")[1], judged(item, "no idea")[1], judged(item, "#### 41")[1]
    ('', 'empty', 'no_final', 'unknown')
    """
    verdict = CHECKERS[item.kind](text, item)
    return verdict, "" if verdict.correct else diagnose(text, finish=finish, item=item).error
