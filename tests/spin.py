"""The models of tests/model, checked by Spin: `python -m tests.spin`, or see --help.

Each model must hold in every state that it can come to, and must fail in each of its variants that
leave out something the functions do, for the reason that is given here.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent / "model"
PROGRAMS = ("spin", "gcc")
MEGABYTES = 2048
SECONDS = 600
"""When to give up. On two cores each search takes less than 20 seconds."""


@dataclass(frozen=True)
class Check:
    """A model, what to define in it, and what Spin must say: nothing, or the fault."""

    model: str
    defined: tuple[str, ...]
    fault: str | None = None

    @property
    def variant(self) -> str:
        return " ".join(self.defined)

    @property
    def is_liveness(self) -> bool:
        return "LIVENESS" in self.defined


@dataclass(frozen=True)
class Outcome:
    """What Spin said."""

    check: Check
    states: int
    fault: str | None
    is_complete: bool
    unreached: tuple[str, ...]
    seconds: float
    trail: str

    @property
    def verdict(self) -> str:
        """`holds`, `caught: ...`, or what is wrong, in capitals."""
        expected = self.check.fault
        if expected is None:
            if self.fault is not None:
                return f"FAULT: {self.fault}"
            if not self.is_complete:
                return "SEARCH NOT COMPLETED"
            if self.unreached and not self.check.is_liveness:
                return f"NEVER DONE: {', '.join(self.unreached)}"
            return "holds"
        if self.fault is None:
            return "NOT CAUGHT"
        if expected not in self.fault:
            return f"CAUGHT FOR ANOTHER REASON: {self.fault}"
        return f"caught: {self.fault}"

    @property
    def is_right(self) -> bool:
        return self.verdict.startswith(("holds", "caught"))


CHECKS = [
    Check("runs", ("SESSIONS=3", "JOBS=1", "RETRIES=1")),
    Check("runs", ("SESSIONS=2", "JOBS=2", "RETRIES=0")),
    Check("runs", ("SESSIONS=2", "JOBS=1", "RETRIES=1", "LIVENESS")),
    Check("runs", ("SESSIONS=3", "JOBS=1", "RETRIES=0", "LIVENESS")),
    Check("runs", ("BROKEN_CANCEL_TRUSTS_ITS_SNAPSHOT",), "(job[j].status=="),
    Check("runs", ("BROKEN_CLAIM_WITHOUT_RECHECK",), "(job[j].claim==0)"),
    Check("runs", ("BROKEN_DECISION_BEFORE_THE_LOCK",), "(job[j].cancel_requested)"),
    Check("runs", ("BROKEN_FENCE",), "(job[j].claim==n)"),
    Check("runs", ("BROKEN_LOSS_NOT_COUNTED",), "(job[j].claims<="),
    Check("runs", ("BROKEN_NO_RECLAIM", "LIVENESS"), "acceptance cycle"),
    Check("runs", ("BROKEN_RECLAIM_WITHOUT_LOCK",), "(job[j].claim==n)&&job[j].due"),
    Check("runs", ("BROKEN_RETRY_WITHOUT_RECHECK",), "(job[j].status=="),
    Check("keys", ("SESSIONS=3",)),
    Check("keys", ("BROKEN_END_KEEPS_THE_KEY",), "job[j].holds=="),
    Check("keys", ("BROKEN_ENQUEUE_DOES_NOT_LOOP",), "violated 0"),
    Check("keys", ("BROKEN_ENQUEUE_LOOKS_FIRST",), "(job[2].status==2))<=1"),
    Check("keys", ("BROKEN_REQUEUE_FREES_THE_KEY",), "job[j].holds=="),
    Check("keys", ("BROKEN_RETRY_IGNORES_THE_KEY",), "(job[2].status==2))<=1"),
    Check("keys", ("BROKEN_RETRY_LOOKS_FIRST",), "(job[2].status==2))<=1"),
    Check("locks", ("SESSIONS=3",)),
    Check("locks", ("BROKEN_CANCEL_JOBS_WAITS",), "invalid end state"),
    Check("locks", ("BROKEN_END_RUNS_IN_THE_ORDER_GIVEN",), "invalid end state"),
    Check("locks", ("BROKEN_HEARTBEAT_WAITS",), "invalid end state"),
    Check("locks", ("BROKEN_JOB_BEFORE_CLAIM",), "invalid end state"),
]


def missing_programs() -> list[str]:
    """What the checks need and is not installed here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def variants_in_the_models() -> set[tuple[str, str]]:
    """Each model and each of its BROKEN_... variants."""
    return {
        (path.stem, variant)
        for path in DIRECTORY.glob("*.pml")
        for variant in re.findall(r"\bBROKEN_\w*[A-Z]\b", path.read_text())
    }


def run(check: Check) -> Outcome:
    """Have Spin visit every state of the model, or all until it finds a fault."""
    if check.is_liveness:
        search, options = [], ["-a", "-f"]  # looks for fair runs that go on for ever
    elif check.fault is None:
        search, options = ["-DSAFETY"], []
    else:
        search, options = ["-DSAFETY", "-DBFS"], []  # the shortest way to the fault
    with tempfile.TemporaryDirectory(prefix="job_queue_model_") as directory:
        _call(directory, "spin", "-a", *_source(check))
        # COLLAPSE packs the states but keeps all of each: nothing is left to a hash.
        limits = ["-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}"]
        _call(directory, "gcc", "-O1", "-w", *limits, *search, "-o", "pan", "pan.c")
        start = time.monotonic()
        output = _call(directory, "./pan", "-m1000000", "-w22", *options)
        seconds = time.monotonic() - start
        trail = ""
        if (Path(directory) / f"{check.model}.pml.trail").exists():
            replay = ["-t", "-k", f"{check.model}.pml.trail", "-p", "-g"]
            trail = _call(directory, "spin", *replay, *_source(check))
    return outcome_of(check, output, seconds, trail)


def _source(check: Check) -> list[str]:
    return [f"-D{name}" for name in check.defined] + [str(DIRECTORY / f"{check.model}.pml")]


def _call(directory: str, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


def outcome_of(check: Check, output: str, seconds: float, trail: str = "") -> Outcome:
    """Read what the search has printed."""
    errors = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    if errors is None or states is None:
        raise RuntimeError(output)
    fault = re.search(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", output, re.M)
    complete = errors[1] == "0" and not re.search(
        r"not completed|too small|max search depth|out of memory|truncated", output, re.I
    )
    # The end of a process that never ends, or of which there are none, is not reached.
    unreached = re.findall(r"^\t\w+\.pml:(\d+), state \d+, \"(?!-end-)(.*)\"$", output, re.M)
    return Outcome(
        check,
        int(states[1]),
        fault[1] if fault else None if errors[1] == "0" else "an error without a name",
        complete,
        tuple(f"line {line}: {what}" for line, what in unreached),
        seconds,
        trail,
    )


def table(outcomes: Iterable[Outcome]) -> Iterable[str]:
    """The outcomes in Markdown, a line at a time."""
    yield "| model | variant | states | seconds | verdict |"
    yield "|---|---|---:|---:|---|"
    for outcome in outcomes:
        check = outcome.check
        verdict = outcome.verdict.replace("|", "\\|")
        yield (
            f"| {check.model} | {check.variant} | {outcome.states:,} | {outcome.seconds:.1f} "
            f"| {verdict} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.spin", description=__doc__)
    parser.add_argument(
        "words", nargs="*", help="check only what has one of these in its model or variant"
    )
    parser.add_argument(
        "--trail", action="store_true", help="print the steps that lead to each fault"
    )
    arguments = parser.parse_args()
    if missing := missing_programs():
        parser.error(f"not installed: {', '.join(missing)}")

    outcomes = []

    def checked() -> Iterable[Outcome]:
        for check in CHECKS:
            name = f"{check.model} {check.variant}"
            if not arguments.words or any(word in name for word in arguments.words):
                outcomes.append(run(check))
                yield outcomes[-1]

    for line in table(checked()):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    if arguments.trail:
        sys.stdout.writelines(f"\n{o.check.variant}:\n{o.trail}" for o in outcomes if o.trail)
    return 0 if outcomes and all(outcome.is_right for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
