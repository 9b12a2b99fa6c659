"""Draws curves as SVG files: python -m tests.bench.plot results.json --to DIRECTORY."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.ticker import EngFormatter

Series = dict[str, Any]

COLOURS = {"free": "#8a8f98", "old snapshot": "#c2410c"}


def main() -> int:
    """Draw what is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--to", type=Path, default=Path("."), metavar="DIRECTORY")
    given = parser.parse_args()
    measured = json.loads(given.file.read_text())
    given.to.mkdir(parents=True, exist_ok=True)
    matplotlib.use("svg")
    # The same file each time, and text that stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 10})
    for part, draw in (("growth", _growth), ("pinned", _pinned), ("million", _million)):
        series = [one for one in measured["series"] if one["part"] == part]
        if series:
            figure = draw(series, measured)
            figure.tight_layout()
            path = given.to / f"{part}.svg"
            figure.savefig(path, metadata={"Date": None})
            sys.stdout.write(f"{path}\n")
    return 0


def _growth(series: list[Series], measured: Any) -> Any:
    """Buffers and time of a claim, by how many jobs are queued."""
    figure, places = pyplot.subplots(1, 2, figsize=(9, 3.4))
    medians = {one["what"]: one["median"] for one in measured["figures"] if one["part"] == "growth"}
    sizes = measured["about"]["sizes"]
    finished = f"{sizes['finished']:,} finished"
    passed = f"old snapshot, {sizes['passed']:,} passed"
    for place, unit, title in (
        (places[0], "buffers/job", "Buffers that a claim touches, per job"),
        (places[1], "ms p50", "Time of a claim in the server, ms (p50)"),
    ):
        for one in series:
            call, _, its_unit = one["what"].partition(", ")
            if its_unit != unit:
                continue
            points = one["points"]
            (line,) = place.plot(*zip(*points, strict=True), marker="o", label=call)
            style = {"color": line.get_color()}
            after = [(x, medians[f"{one['what']}: {x:,} queued, {passed}"]) for x, _ in points]
            place.plot(*zip(*after, strict=True), "x--", label=f"{call}, old snapshot", **style)
            least = points[0][0]
            beside = medians[f"{one['what']}: {least:,} queued, {finished}"]
            place.plot(
                [least], [beside], "D", fillstyle="none", label=f"{call}, {finished}", **style
            )
        place.set_xscale("log")
        _dress(place, title, "jobs queued")
    places[0].get_legend().remove()  # it is that of the other
    return figure


def _pinned(series: list[Series], _: Any) -> Any:
    """The rate of claims, with an old snapshot and without, by how many jobs have passed."""
    figure, places = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for place, what in zip(places, ("one by one", "100 a call"), strict=True):
        for one in series:
            name, _, side = one["what"].partition(", ")
            if name == what:
                place.plot(
                    *zip(*one["points"], strict=True), marker="o", label=side, color=COLOURS[side]
                )
        _dress(
            place, f"Claim and complete, {what}: jobs/s", "jobs passed through since the snapshot"
        )
    return figure


def _million(series: list[Series], _: Any) -> Any:
    """The rate of a long drain, and the memory meanwhile."""
    figure, places = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for one in series:
        place = places[0 if one["y"] == "jobs/s" else 1]
        points = one["points"][1:-1] if one["y"] == "jobs/s" else one["points"]
        place.plot(*zip(*(points or one["points"]), strict=True), label=one["what"])
    _dress(places[0], "Drain by one worker: jobs/s", "seconds")
    _dress(places[1], "Memory, MB", "seconds")
    return figure


def _dress(place: Any, title: str, x: str) -> None:
    place.set_title(title, fontsize=10)
    place.set_xlabel(x)
    place.set_ylim(bottom=0)
    place.xaxis.set_major_formatter(EngFormatter(sep=""))
    place.yaxis.set_major_formatter(EngFormatter(sep=""))
    place.grid(alpha=0.3)
    place.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        place.spines[side].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
