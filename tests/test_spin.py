"""The models hold, and their broken variants do not."""

import pytest

from tests.spin import CHECKS, Check, missing_programs, outcome_of, run, variants_in_the_models
from tests.support import skip_unless_required


def test_each_broken_variant_in_the_models_is_checked() -> None:
    checked = {
        (check.model, name)
        for check in CHECKS
        for name in check.defined
        if name.startswith("BROKEN_")
    }
    assert checked == variants_in_the_models()
    assert all((check.fault is not None) == check.variant.startswith("BROKEN_") for check in CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.model} {check.variant}")
def test_spin_agrees(check: Check) -> None:
    if missing := missing_programs():
        skip_unless_required("spin", f"not installed: {', '.join(missing)}")
    outcome = run(check)
    assert outcome.is_right, f"{outcome.verdict}\n{outcome.trail}"


RIGHT = Check("runs", ("SESSIONS=2",))
BROKEN = Check("runs", ("BROKEN_FENCE",), "(job[j].claim==n)")
CLEAN = "State-vector 44 byte, depth reached 9, errors: 0\n  77984 states, stored\n"
CAUGHT = (
    "pan:1: assertion violated (job[j].claim==n) (at depth 32)\n"
    "Warning: Search not completed\nState-vector 44 byte, errors: 1\n  161 states, stored\n"
)
UNREACHED = 'unreached in proctype Session\n\truns.pml:274, state 524, "-end-"\n'


@pytest.mark.parametrize(
    ("check", "output", "verdict"),
    [
        (RIGHT, CLEAN + UNREACHED, "holds"),
        (RIGHT, CAUGHT, "FAULT: assertion violated (job[j].claim==n)"),
        (RIGHT, "error: max search depth too small\n" + CLEAN, "SEARCH NOT COMPLETED"),
        (RIGHT, "Warning: Search not completed\n" + CLEAN, "SEARCH NOT COMPLETED"),
        (
            RIGHT,
            CLEAN + UNREACHED.replace("-end-", "job[j].lock = 0"),
            "NEVER DONE: line 274: job[j].lock = 0",
        ),
        (BROKEN, CAUGHT, "caught: assertion violated (job[j].claim==n)"),
        (BROKEN, CLEAN, "NOT CAUGHT"),
        (
            BROKEN,
            CAUGHT.replace("assertion violated (job[j].claim==n)", "invalid end state"),
            "CAUGHT FOR ANOTHER REASON: invalid end state",
        ),
    ],
)
def test_what_spin_prints_is_understood(check: Check, output: str, verdict: str) -> None:
    outcome = outcome_of(check, output, 0.0)
    assert outcome.verdict == verdict
    assert outcome.is_right == verdict.startswith(("holds", "caught"))


def test_output_without_an_end_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        outcome_of(RIGHT, "Segmentation fault", 0.0)
