"""How many forwards a draw takes, by when waiting rows take the seats of finished ones: the schedule alone, no model.

    python benchmarks/turns.py

Responses have exponentially distributed lengths, mean 60, cut at 128; each figure is the mean of 20 draws with seeds of
their own. `groups`: rows of a group are decoded until its longest is done, then the next group. `turns`: as
`limbeck.models.turns` says. `least`: no seat is ever empty. A forward reads all seated rows once; rows that come in
beside others take a forward of their own, which draws their first token.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from unittest.mock import patch

from limbeck.models import turns as schedule
from limbeck.models.turns import Turns
from limbeck.seeds import Seeds

MEAN, LIMIT, DRAWS = 60.0, 128, 20
UNITS = ((256, 32), (64, 16), (256, 16))
SHARES = (2, 4, 8, 16, 32)


def lengths(rows: int, draw: int) -> list[int]:
    """Tokens of each response."""
    generator = Seeds(draw).child("lengths").generator()
    return [min(LIMIT, max(1, math.ceil(length))) for length in generator.exponential(MEAN, size=rows)]


def in_groups(asked: Sequence[int], seats: int) -> int:
    """Forwards where groups follow each other."""
    return sum(max(asked[first : first + seats]) for first in range(0, len(asked), seats))


def in_turns(asked: Sequence[int], seats: int) -> int:
    """Forwards where waiting rows come in."""
    turns, waiting, seated, forwards = Turns(seats=seats, joins=True), list(asked), list[int](), 0
    while waiting or seated:
        while count := turns.entering(waiting=len(waiting), seated=len(seated)):
            new, waiting = waiting[:count], waiting[count:]
            if seated:
                forwards += 1
                new = [left - 1 for left in new if left > 1]
            seated += new
        forwards += 1
        seated = [left - 1 for left in seated if left > 1]
    return forwards


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same: it takes a second")
    parser.parse_args()
    print("rows  seats  groups  turns  least")
    for rows, seats in UNITS:
        drawn = [lengths(rows, draw) for draw in range(DRAWS)]
        groups = sum(in_groups(each, seats) for each in drawn) / DRAWS
        turned = sum(in_turns(each, seats) for each in drawn) / DRAWS
        least = sum(math.ceil(sum(each) / seats) for each in drawn) / DRAWS
        print(f"{rows:4}  {seats:5}  {groups:6.0f}  {turned:5.0f}  {least:5.0f}")
    rows, seats = UNITS[0]
    drawn = [lengths(rows, draw) for draw in range(DRAWS)]
    for share in SHARES:
        with patch.object(schedule, "_SHARE_TO_ENTER", share):
            turned = sum(in_turns(each, seats) for each in drawn) / DRAWS
        print(f"{rows} rows, {seats} seats, waiting for 1/{share} of them: {turned:.0f}")


if __name__ == "__main__":
    main()
