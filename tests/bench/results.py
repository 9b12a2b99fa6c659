"""What was measured: figures, each with the values of all rounds, and series."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


class Results:
    """All of it, as it goes into the JSON file."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.figures: list[dict[str, Any]] = []
        self.series: list[dict[str, Any]] = []

    def add(
        self,
        part: str,
        what: str,
        unit: str,
        values: Sequence[float],
        beside: str | None = None,
    ) -> None:
        """Add a figure, one value a round.

        `beside` names another figure of the part, measured in the same rounds: the ratio is the
        median of those within each round, which what else the machine does spoils least.
        """
        figure = {
            "part": part,
            "what": what,
            "unit": unit,
            "median": median(values),
            "values": list(values),
        }
        if beside is not None:
            other = self.of(part, beside)["values"]
            figure["beside"] = beside
            figure["ratio"] = median(
                value / base for value, base in zip(values, other, strict=True) if base
            )
        self.figures.append(figure)

    def add_series(
        self, part: str, what: str, x: str, y: str, points: Sequence[tuple[float, float]]
    ) -> None:
        """Add points of a curve."""
        self.series.append(
            {"part": part, "what": what, "x": x, "y": y, "points": [list(at) for at in points]}
        )

    def of(self, part: str, what: str) -> dict[str, Any]:
        """Return a figure."""
        [found] = [one for one in self.figures if (one["part"], one["what"]) == (part, what)]
        return found

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                {"about": self.about, "figures": self.figures, "series": self.series}, indent=1
            )
            + "\n"
        )

    def table(self) -> str:
        """Return the figures as a table of Markdown, which is also easy to read as it is."""
        rows = [("part", "what", "median", "lowest to highest", "unit", "ratio", "to")]
        rows += [
            (
                one["part"],
                one["what"],
                _number(one["median"]),
                f"{_number(min(one['values']))} - {_number(max(one['values']))}",
                one["unit"],
                f"{one['ratio']:.2f}" if "ratio" in one else "",
                one.get("beside", ""),
            )
            for one in self.figures
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
