"""The page that shows a run of the suite: the table and, of each scenario, its course in time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from tests.faults.results import Injected, Result, rows_of

WIDTH, HEIGHT, LEFT, BELOW = 760, 150, 40, 20

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px }
th, td { border-bottom: 1px solid #ddd; padding: .2em .6em; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { font: 11px system-ui, sans-serif; width: 100%; fill: #555 }
.bad { color: #b91c1c; font-weight: bold }
.run { fill: #64748b } .fault { fill: #fdba74 } .before { stroke: #15803d; stroke-dasharray: 4 3 }
"""


def page(results: Sequence[Result]) -> str:
    """Return it in HTML that is XML too."""
    head, _, *rows = rows_of(results)
    about = results[0].about if results else {}
    settings = "; ".join(f"{name} {value}" for name, value in about.get("server", {}).items())
    return "\n".join(
        [
            '<html lang="en"><head><meta charset="utf-8"/><title>Faults</title>',
            f"<style>{_STYLE}</style></head><body><h1>Faults</h1>",
            f"<p>{escape(str(about.get('at', '')))}, commit {escape(str(about.get('commit')))}, "
            f"{escape(str(about.get('cores')))} cores, PostgreSQL: {escape(settings)}</p>",
            _table(head, rows),
            "<p>Bars: runs that ended in a second. Shaded: a fault. Dashed: the rate before.</p>",
            *(_section(one) for one in results),
            "</body></html>\n",
        ]
    )


def _section(result: Result) -> str:
    verdict = "nothing lost, nothing done twice, no rule broken"
    if result.allowed:
        verdict += f"; missing, as may be: {sum(result.allowed.values())}"
    if not result.is_good:
        verdict = ", ".join(f"{count} {kind}" for kind, count in result.wrong.items())
    state = "good" if result.is_good else "bad"
    kinds: Counter[str] = Counter()
    for fault in result.injected:
        kinds[fault.what] += fault.times
    injected = ", ".join(f"{count} x {what}" for what, count in kinds.items())
    return "\n".join(
        [
            f"<h2>{escape(result.scenario)}</h2><p>{escape(result.summary)}</p>",
            f'<p class="{state}">{escape(verdict)}</p>',
            f"<p>{result.jobs:,} jobs, {result.runs:,} runs. {escape(injected)}. "
            f"All jobs had ended {result.drain:.1f} s after the load. Seed {result.seed}.</p>",
            _plot(result),
            _table(
                ["fault", "at, s", "for, s", "throughput was back after, s"],
                (_row(fault) for fault in result.injected),
            ),
            *(f"<p>{escape(line)}</p>" for line in [*result.notes, *result.found]),
        ]
    )


def _row(fault: Injected) -> list[str]:
    recovery = "not within the run" if fault.recovery is None else f"{fault.recovery:.1f}"
    return [fault.what, f"{fault.begin:.1f}", f"{fault.end - fault.begin:.1f}", recovery]


def _plot(result: Result) -> str:
    seconds = max(len(result.a_second), 1)
    most = max([*result.a_second, result.before, 1])
    wide, high = (WIDTH - LEFT) / seconds, (HEIGHT - BELOW) / most
    floor = HEIGHT - BELOW

    def x(at: float) -> float:
        return LEFT + at * wide

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for fault in result.injected:
        width = max((fault.end - fault.begin) * wide, 1.5)
        parts.append(
            f'<rect class="fault" x="{x(fault.begin):.1f}" y="0" width="{width:.1f}" '
            f'height="{floor}"><title>{escape(fault.what)}</title></rect>'
        )
    for second, count in enumerate(result.a_second):
        parts.append(
            f'<rect class="run" x="{x(second):.1f}" y="{floor - count * high:.1f}" '
            f'width="{wide * 0.8:.1f}" height="{count * high:.1f}"/>'
        )
    before = floor - result.before * high
    parts.append(
        f'<line class="before" x1="{LEFT}" x2="{WIDTH}" y1="{before:.1f}" y2="{before:.1f}"/>'
        f'<text x="{LEFT - 4}" y="{before + 4:.1f}" text-anchor="end">{result.before:.0f}/s</text>'
    )
    for second in range(0, seconds, 10 if seconds < 120 else 30):
        parts.append(f'<text x="{x(second):.1f}" y="{HEIGHT - 5}">{second} s</text>')
    return "".join([*parts, "</svg>"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [f"<td>{'</td><td>'.join(map(escape, row))}</td>" for row in rows]
    lines = "".join(f"<tr>{line}</tr>" for line in cells)
    return f"<table><tr><th>{'</th><th>'.join(map(escape, head))}</th></tr>{lines}</table>"
