"""The words of generated arithmetic problems: people, things, what happens to the things, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sign = Literal["+", "-", "*", "/"]

PEOPLE = (
    ("Ada", "she"), ("Ben", "he"), ("Carla", "she"), ("Dino", "he"), ("Edda", "she"), ("Finn", "he"),
    ("Greta", "she"), ("Hugo", "he"), ("Ines", "she"), ("Jonas", "he"), ("Kira", "she"), ("Luis", "he"),
    ("Mona", "she"), ("Nils", "he"), ("Olga", "she"), ("Pablo", "he"), ("Quinn", "she"), ("Rafi", "he"),
    ("Selma", "she"), ("Tariq", "he"), ("Uma", "she"), ("Viktor", "he"), ("Wanda", "she"), ("Yusuf", "he"),
)  # fmt: skip
THINGS = (
    "apples", "marbles", "stamps", "buttons", "shells", "postcards", "pencils", "coins", "stickers", "beads",
    "walnuts", "cards", "bricks", "tickets", "candles", "ribbons", "lemons", "cookies", "pebbles", "badges",
    "seeds", "balloons", "magnets", "eggs",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens to a number of things. `text` has the slots who, they, n and things; `name` says what the
    number is afterwards."""

    sign: Sign
    text: str
    name: str


OPENINGS = (
    "{who} has {n} {things}.",
    "{who} starts the week with {n} {things}.",
    "There are {n} {things} on {who}'s table.",
    "{who} finds {n} {things} in a drawer.",
    "In the morning {who} counts {n} {things}.",
    "{who} keeps {n} {things} in a box.",
)
EVENTS = (
    Event(sign="+", text="{They} buys {n} more.", name="{Things} after buying"),
    Event(sign="+", text="A friend gives {who} {n} {things}.", name="{Things} after the gift"),
    Event(sign="+", text="Then {they} finds another {n}.", name="{Things} after the find"),
    Event(sign="+", text="{Who} wins {n} {things} in a game.", name="{Things} after winning"),
    Event(sign="+", text="On the way home {they} collects {n} {things}.", name="{Things} after collecting"),
    Event(sign="+", text="A parcel with {n} {things} arrives for {who}.", name="{Things} with the parcel"),
    Event(sign="-", text="{They} gives {n} away.", name="{Things} after giving"),
    Event(sign="-", text="{Who} loses {n} {things}.", name="{Things} after the loss"),
    Event(sign="-", text="Then {they} sells {n} of them.", name="{Things} after the sale"),
    Event(sign="-", text="{n} {things} are broken, and {who} throws them out.", name="{Things} that are whole"),
    Event(sign="-", text="{Who} lends {n} of the {things} to a neighbour.", name="{Things} after lending"),
    Event(sign="-", text="{n} of them fall into the river.", name="{Things} out of the river"),
    Event(sign="*", text="After a month {they} has {n} times as many.", name="{Things} after a month"),
    Event(sign="*", text="A machine makes {n} {things} out of each of them.", name="{Things} from the machine"),
    Event(
        sign="*",
        text="{Who} fills {n} boxes, each with that many {things}.",
        name="{Things} in all boxes",
    ),
    Event(
        sign="*",
        text="{n} friends each bring as many as {who} has, and take the old ones.",
        name="{Things} brought",
    ),
    Event(sign="/", text="{They} shares them equally among {n} baskets and keeps one.", name="{Things} in a basket"),
    Event(
        sign="/",
        text="{Who} makes {n} equal piles of the {things} and takes one home.",
        name="{Things} in a pile",
    ),
    Event(sign="/", text="Of every {n} {things} {they} keeps just one.", name="{Things} that are kept"),
    Event(sign="/", text="{n} children share all of them equally, {who} being one.", name="{Things} for each child"),
)
QUESTIONS = (
    "How many {things} does {who} have now?",
    "How many {things} does {they} have in the end?",
    "With how many {things} is {who} left?",
    "What is the number of {things} that {who} has at the end?",
)


def told(text: str, *, person: tuple[str, str], things: str, number: int | None = None) -> str:
    """A sentence with its slots filled.

    >>> told("{They} buys {n} more {things}.", person=("Ada", "she"), things="eggs", number=3)
    'She buys 3 more eggs.'
    """
    who, they = person
    filled = {
        "who": who, "Who": who, "they": they, "They": they.capitalize(),
        "things": things, "Things": things.capitalize(), "n": "" if number is None else str(number),
    }  # fmt: skip
    return text.format(**filled)
