"""What the paper prints, as a table."""

from __future__ import annotations

from limbeck.reporting.tables import Column, Number, Row, Table
from limbeck.studies import paper


def published_table() -> Table:
    """Table 1 of the paper, averages recomputed."""
    columns = (
        Column(title="pair"),
        Column(title="method"),
        *(Column(title=title) for title in paper.TABLE1_COLUMNS),
        Column(title="average"),
        Column(title="printed average"),
    )
    rows = [
        Row(
            cells=(
                pair,
                arm,
                *(Number(value=number, digits=4) for number in numbers),
                Number(value=paper.average(pair, arm), digits=4),
                Number(value=printed, digits=4),
            ),
            ranked=False,
        )
        for pair, arms in paper.TABLE1.items()
        for (arm, numbers), printed in zip(arms.items(), paper.TABLE1_PRINTED_AVERAGES[pair], strict=True)
    ]
    return Table(columns=columns, rows=tuple(rows), notes=paper.SLIPS["table1"])
