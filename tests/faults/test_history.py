"""The checker finds each fault in a history that was made by hand to have it, and no other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.history import (
    Entry,
    Event,
    Fault,
    Job,
    Records,
    Rules,
    check,
    outcomes,
    read,
    read_all,
)
from tests.faults.log import Log


class Story:
    """A history, event by event, of jobs that were asked for and runs that were to end so."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.events: list[Event] = []
        self.log: list[Entry] = []
        self.statuses: dict[str, str] = {}

    def __call__(self, job: str, verb: str, to: str, **members: Any) -> "Story":
        self.jobs.setdefault(job, Job(job, ""))
        number = len(self.events) + 1
        self.events.append(
            Event(number, job, verb, members.pop("of", self.statuses.get(job)), to, **members)
        )
        self.statuses[job] = to
        return self

    def enqueue(self, job: str = "a", to: str = "queued", **members: Any) -> "Story":
        return self(job, "enqueue", to, **members)

    def claim(self, job: str = "a", claim: int = 1, attempt: int = 1) -> "Story":
        return self(job, "claim", "running", claim=claim, attempt=attempt)

    def end(
        self, verb: str = "complete", to: str = "succeeded", job: str = "a", claim: int = 1
    ) -> "Story":
        return self(job, verb, to, claim=claim)

    def retry(self, job: str = "a") -> "Story":
        """Have it tried again, as somebody asked for who was not answered."""
        ref = f"retry {len(self.events)}"
        return self(job, "retry", "queued").told("retry", "unknown", ref, job=job)

    def cancel(self, job: str = "a", to: str = "cancelled") -> "Story":
        """Have it cancelled, as somebody asked for who was not answered."""
        ref = f"cancel {len(self.events)}"
        return self(job, "cancel", to).told("cancel", "unknown", ref, job=job)

    def told(self, op: str, outcome: str, ref: str = "r", **members: Any) -> "Story":
        self.log.append(Entry(op, ref, "intent"))
        if outcome != "nothing":
            self.log.append(Entry(op, ref, outcome, **members))
        return self

    def records(self, **members: Any) -> Records:
        jobs = [replace(job, status=self.statuses.get(i, "")) for i, job in self.jobs.items()]
        known = {entry.ref for entry in self.log if entry.op == "enqueue"}
        refs = {job.ref for job in jobs if job.ref is not None}
        asked = [Entry("enqueue", ref, "intent") for ref in sorted(refs - known)]
        meant = [
            Entry("done", f"run {event.claim}", "intent", event.job, event.claim, event.verb)
            for event in self.events
            if event.claim is not None and event.verb != "claim"
        ]
        return Records([*asked, *self.log, *meant], self.events, jobs, **members)

    def faults(self, rules: Rules | None = None, **members: Any) -> list[Fault]:
        return check(self.records(**members), rules)


def done(job: str = "a", claim: int = 1, **members: Any) -> Story:
    """Return the history of a job that went well."""
    return Story(Job(job, "", **members)).enqueue(job).claim(job, claim).end(job=job, claim=claim)


def kinds(faults: list[Fault]) -> list[str]:
    return [fault.kind for fault in faults]


def test_a_job_that_is_done_is_no_fault() -> None:
    story = done(ref="r")
    story.told("enqueue", "acknowledged", job="a", answer="created")
    story.told("claim", "acknowledged", job="a", claim=1)
    story.told("run", "acknowledged", job="a", claim=1)
    story.told("end", "acknowledged", job="a", claim=1, answer="complete")
    assert story.faults() == []


# --- what clients were told


@pytest.mark.parametrize("outcome", ["unknown", "nothing"])
@pytest.mark.parametrize("op", ["enqueue", "claim", "end", "cancel", "retry"])
def test_what_a_client_does_not_know_may_have_happened_or_not(op: str, outcome: str) -> None:
    assert done(ref="r").told(op, outcome, job="a", claim=1, answer="complete").faults() == []
    assert done().told(op, outcome).faults() == []


def test_an_acknowledged_job_that_is_gone_is_lost() -> None:
    assert kinds(done().told("enqueue", "acknowledged", job="b").faults()) == ["lost"]


def test_a_job_acknowledged_as_new_that_is_another_callers_is_lost() -> None:
    story = done(ref="another").told("enqueue", "acknowledged", job="a", answer="created")
    assert kinds(story.faults()) == ["lost"]


def test_a_unique_job_that_was_there_already_is_not_lost() -> None:
    for members in ({"answer": "there already"}, {}):
        story = done(ref="another", unique_key="k")
        assert story.told("enqueue", "acknowledged", job="a", **members).faults() == []


def test_a_job_that_was_there_already_without_a_unique_key_is_lost() -> None:
    story = done(ref="another").told("enqueue", "acknowledged", job="a", answer="there already")
    assert kinds(story.faults()) == ["lost"]


def test_a_job_that_was_there_already_and_was_made_too_is_found() -> None:
    story = Story(Job("a", "", unique_key="k"), Job("b", "", ref="r", unique_key="k"))
    story.enqueue().claim().end().enqueue("b").claim("b", 2).end(job="b", claim=2)
    story.told("enqueue", "acknowledged", job="a", answer="there already")
    assert kinds(story.faults()) == ["transactions"]


def test_an_acknowledged_job_that_is_there_under_another_id_is_lost() -> None:
    story = Story(Job("a", "", ref="r"), Job("b", "", ref="another"))
    story.enqueue().claim().end().enqueue("b").claim("b", 2).end(job="b", claim=2)
    story.told("enqueue", "acknowledged", job="b", answer="created")
    assert kinds(story.faults()) == ["lost"]


def test_a_repetition_that_is_answered_with_another_job_is_found() -> None:
    story = Story(Job("a", "", ref="r"), Job("b", "", unique_key="k"))
    story.enqueue().claim().end().enqueue("b").claim("b", 2).end(job="b", claim=2)
    story.told("enqueue", "acknowledged", job="a", answer="created")
    story.told("enqueue", "acknowledged", job="a", answer="created")
    assert story.faults() == []
    story.told("enqueue", "acknowledged", job="b")
    assert kinds(story.faults()) == ["doubled"]


def test_a_job_that_nobody_asked_for_is_found() -> None:
    records = done(ref="r").records()
    log = [entry for entry in records.log if entry.op != "enqueue"]
    assert kinds(check(replace(records, log=log))) == ["unasked"]


def test_a_job_of_which_a_repetition_was_acknowledged_is_lost_without_it() -> None:
    story = Story().told("enqueue", "unknown").told("enqueue", "acknowledged", job="a")
    assert kinds(story.faults()) == ["lost"]


@pytest.mark.parametrize("status", ["blocked", "queued", "running"])
def test_a_job_that_never_ends_is_found(status: str) -> None:
    story = Story().enqueue(to="blocked" if status == "blocked" else "queued")
    if status == "running":
        story.claim()
    assert kinds(story.faults()) == ["unended"]


def test_a_job_whose_row_is_gone_is_lost() -> None:
    records = done().records()
    assert kinds(check(replace(records, jobs=[]))) == ["lost"]


def test_a_job_whose_status_is_not_that_of_its_history_is_found() -> None:
    records = done().records()
    assert kinds(check(replace(records, jobs=[Job("a", "failed")]))) == ["transitions"]


def test_a_job_without_a_history_is_found() -> None:
    assert kinds(check(Records([], [], [Job("a", "failed")]))) == ["transitions"]


@pytest.mark.parametrize("outcome", ["rolled back", "refused"])
def test_a_job_that_was_not_to_be_is_found(outcome: str) -> None:
    assert kinds(done(ref="r").told("enqueue", outcome).faults()) == ["transactions"]


def test_a_refusal_after_an_unknown_outcome_says_nothing() -> None:
    story = done(ref="r").told("enqueue", "unknown").told("enqueue", "refused")
    assert story.faults() == []


def test_one_call_that_made_two_jobs_is_found() -> None:
    story = Story(Job("a", "", ref="r"), Job("b", "", ref="r"))
    story.enqueue().claim().end().enqueue("b").claim("b", 2).end(job="b", claim=2)
    assert kinds(story.faults()) == ["doubled"]


def test_a_run_under_a_claim_that_is_not_in_the_history_is_found() -> None:
    for op in ("claim", "run"):
        assert kinds(done().told(op, "acknowledged", job="a", claim=2).faults()) == ["unclaimed"]
        assert kinds(done().told(op, "acknowledged", job="b", claim=1).faults()) == ["unclaimed"]
    assert done().told("claim", "acknowledged").faults() == []  # nothing was waiting


def test_an_accepted_completion_that_is_gone_is_lost() -> None:
    story = Story().enqueue().claim().end("reclaim", "queued").claim(claim=2).end(claim=2)
    story.told("end", "acknowledged", job="a", claim=1, answer="complete")
    assert kinds(story.faults()) == ["lost"]


def test_an_accepted_failure_that_became_a_success_is_lost() -> None:
    story = done().told("end", "acknowledged", job="a", claim=1, answer="fail")
    assert kinds(story.faults()) == ["lost"]


@pytest.mark.parametrize("op", ["run", "end"])
def test_what_was_done_twice_under_one_claim_is_found(op: str) -> None:
    story = done().told(op, "acknowledged", "r", job="a", claim=1, answer="complete")
    assert story.faults() == []
    story.told(op, "refused", "again", job="a", claim=1, answer="fail")
    assert story.faults() == []
    story.told(op, "acknowledged", "once more", job="a", claim=1, answer="complete")
    assert kinds(story.faults()) == ["doubled"]


def test_a_refused_completion_that_took_effect_is_found() -> None:
    story = done().told("end", "refused", job="a", claim=1, answer="complete")
    assert kinds(story.faults()) == ["stale"]
    story = done().told("end", "unknown").told("end", "refused", job="a", claim=1)
    assert story.faults() == []


def test_a_cancel_or_a_retry_that_left_no_trace_is_lost() -> None:
    for answer in ("cancelled", "requested"):
        story = done().told("cancel", "acknowledged", job="a", answer=answer)
        assert kinds(story.faults()) == ["lost"]
    assert done().told("cancel", "acknowledged", job="a", answer="too late").faults() == []
    assert kinds(done().told("retry", "acknowledged", job="a").faults()) == ["lost"]


def test_a_retry_or_a_cancel_that_nobody_asked_for_is_found() -> None:
    story = Story().enqueue().claim().end("fail", "failed")("a", "retry", "queued")
    story.claim(claim=2).end(claim=2)
    assert kinds(story.faults()) == ["unasked"]
    assert kinds(Story().enqueue()("a", "cancel", "cancelled").faults()) == ["unasked"]
    assert kinds(done_after("cancel", "running").faults()) == ["unasked"]


def done_after(verb: str, to: str) -> Story:
    """Return the history of a job that something happened to while it ran."""
    return Story().enqueue().claim()("a", verb, to).end()


@pytest.mark.parametrize("op", ["retry", "cancel"])
def test_a_refused_call_that_took_effect_is_found(op: str) -> None:
    story = Story().enqueue().cancel()
    if op == "retry":
        story("a", "retry", "queued").claim().end().told(op, "refused", job="a")
    else:
        story.log = []
        story.told(op, "refused", job="a")
    assert kinds(story.faults()) == ["unasked"]


def test_one_retry_of_two_that_were_acknowledged_is_lost() -> None:
    story = Story().enqueue().claim().end("fail", "failed").retry().claim(claim=2).end(claim=2)
    story.log = []
    story.told("retry", "acknowledged", "r", job="a")
    assert story.faults() == []
    story.told("retry", "acknowledged", "again", job="a")
    assert kinds(story.faults()) == ["lost", "lost"]  # it may be either


def test_a_call_for_many_jobs_that_was_not_answered_may_have_been_for_any() -> None:
    story = Story().enqueue()("a", "cancel", "cancelled")("a", "retry", "queued").claim().end()
    story.told("cancel", "unknown").told("retry", "nothing")
    assert story.faults() == []


def test_who_cancels_a_job_that_is_cancelled_is_told_the_same() -> None:
    story = Story().enqueue().cancel()
    for ref in ("r", "again"):
        story.told("cancel", "acknowledged", ref, job="a", answer="cancelled")
    assert story.faults() == []


# --- runs


def test_a_completion_that_nobody_meant_is_found() -> None:
    for verb, to in (("complete", "succeeded"), ("snooze", "cancelled"), ("snooze", "queued")):
        story = Story(Job("a", "", max_attempts=2)).enqueue().claim()
        if to == "cancelled":
            story.cancel(to="running")
        story.end(verb, to)
        if to == "queued":
            story.claim(claim=2).end(claim=2)
        records = story.records()
        silent = [entry for entry in records.log if entry.claim != 1]
        expected = [] if to == "cancelled" else ["unasked"]
        assert kinds(check(replace(records, log=silent))) == expected
        assert check(records) == []


def test_a_failure_of_a_run_that_was_to_complete_is_found() -> None:
    records = Story().enqueue().claim().end("fail", "failed").records()
    meant = Entry("done", "run 1", "intent", job="a", claim=1, answer="complete")
    assert kinds(check(replace(records, log=[meant]))) == ["unasked"]
    assert check(replace(records, log=[])) == []  # it could not even begin


def refused(after: float, *, sqlstate: str = "JQ003", renewed: float | None = None) -> Story:
    """Return the history of a claim that came too late, after so many seconds of a lease of 1."""
    story = Story().enqueue().claim().end("reclaim", "queued").claim(claim=2).end(claim=2)
    held: dict[str, Any] = {"job": "a", "claim": 1, "lease": 1.0}
    story.log = [
        Entry("claim", "r", "intent", at=10.0),
        Entry("claim", "r", "acknowledged", at=10.1, **held),
    ]
    if renewed is not None:
        story.log.append(Entry("heartbeat", "h", "intent", at=10.0 + renewed))
        story.log.append(Entry("heartbeat", "h", "acknowledged", at=10.1 + renewed, **held))
    story.log.append(Entry("end", "e", "intent", "a", 1, "complete", at=10.2 + (renewed or 0)))
    end = Entry("end", "e", "refused", "a", 1, "complete", sqlstate=sqlstate, at=10.0 + after)
    story.log.append(end)
    return story


def test_a_claim_that_was_lost_before_its_lease_ran_out_is_found() -> None:
    assert refused(1.01).faults() == []
    assert kinds(refused(0.99).faults()) == ["leases"]
    assert refused(0.99, sqlstate="53100").faults() == []  # no room on the disk
    assert refused(1.51, renewed=0.5).faults() == []
    assert kinds(refused(1.49, renewed=0.5).faults()) == ["leases"]


def test_a_repetition_that_is_refused_within_the_lease_is_no_fault() -> None:
    story = refused(0.99)
    story.log.insert(3, Entry("end", "e", "unknown", "a", 1, "complete", at=10.3))
    story.log.insert(3, Entry("end", "e", "intent", "a", 1, "complete", at=10.25))
    assert story.faults() == []


def untold(*, seconds: float = 1.1, by: str = "w", order: int = 1) -> Story:
    """Return the history of a run that was done, and lost though its worker had claimed since."""
    story = Story().enqueue().enqueue("b").enqueue("c").claim()
    story.claim("b", 2)
    if order > 0:
        story.claim("c", 3)
    story.end("reclaim", "queued")
    if order < 0:
        story.claim("c", 3)
    story.end(job="b", claim=2).end(job="c", claim=3).claim(claim=4).end(claim=4)
    story.told("run", "acknowledged", "run 1", job="a", claim=1, by="w")
    story.log.append(Entry("done", "run 1", "intent", "a", 1, "complete", at=10.0, by="w"))
    story.log.append(Entry("claim", "by hand", "intent", at=10 + seconds))
    story.log.append(Entry("claim", "by hand", "acknowledged", "b", 2, at=10.2 + seconds))
    return story.told("run", "acknowledged", "run 3", job="c", claim=3, by=by)


def faults_of_untold(story: Story) -> list[str]:
    """Return what is wrong with it, of a lost run that was to complete."""
    records = story.records()
    log = [one for one in records.log if one.op != "done" or one.answer == "complete"]
    return kinds(check(replace(records, log=log)))


def test_a_worker_that_lives_on_and_never_tells_of_a_completion_is_found() -> None:
    assert faults_of_untold(untold()) == ["lost"]
    assert faults_of_untold(untold(seconds=0.9)) == []  # it may have been about to
    assert faults_of_untold(untold(by="another")) == []
    assert faults_of_untold(untold(order=-1)) == []  # the lease had run out by then


# --- claims


def test_two_claims_at_once_are_found() -> None:
    story = Story().enqueue().claim()
    story("a", "claim", "running", claim=2, attempt=2, of="queued").end(claim=2)
    assert "doubled" in kinds(story.faults())


def test_two_claims_with_one_number_are_found() -> None:
    story = done().enqueue("b").claim("b", 1).end(job="b", claim=1)
    assert kinds(story.faults()) == ["doubled"]


def test_a_claim_after_the_last_was_lost_is_no_fault() -> None:
    story = Story().enqueue().claim().end("reclaim", "queued").claim(claim=2).end(claim=2)
    assert story.faults() == []


def test_a_completion_under_a_stale_claim_is_found() -> None:
    story = Story().enqueue().claim().end("reclaim", "queued").claim(claim=2).end(claim=1)
    assert kinds(story.faults()) == ["stale"]


def test_a_completion_without_a_claim_is_found() -> None:
    story = Story().enqueue().claim().end("reclaim", "queued").end()
    assert "stale" in kinds(story.faults())


def test_events_that_do_not_follow_from_each_other_are_found() -> None:
    story = Story().enqueue("a", "blocked").cancel()
    story("a", "unblock", "queued", of="blocked").claim().end()
    assert kinds(story.faults()) == ["transitions"]


def test_what_succeeded_stays_so() -> None:
    assert kinds(done().cancel().faults()) == ["transitions"]
    assert kinds(done().retry().claim(claim=2).end(claim=2).faults()) == ["transitions"]


def test_a_retry_of_a_job_that_runs_is_found() -> None:
    story = Story().enqueue().claim().retry().claim(claim=2).end(claim=2)
    assert "transitions" in kinds(story.faults())


def test_a_claim_without_a_number_is_found() -> None:
    story = Story().enqueue()("a", "claim", "running", attempt=1)
    assert "unclaimed" in kinds(story.faults())
    story("a", "complete", "succeeded")
    assert "stale" in kinds(story.faults())


# --- attempts and losses


def test_attempts_up_to_the_limit_are_no_fault_and_what_does_not_count_is_not_counted() -> None:
    story = Story(Job("a", "", max_attempts=2, max_losses=2)).enqueue()
    for claim, verb in enumerate(("snooze", "release", "reclaim"), 1):
        story.claim(claim=claim).end(verb, "queued", claim=claim)
    story.claim(claim=4).end("fail", "queued", claim=4)
    story.claim(claim=5, attempt=2).end("time_out", "failed", claim=5)
    story.retry().claim(claim=6).end(claim=6)
    assert story.faults() == []


def test_an_attempt_too_many_is_found() -> None:
    story = Story().enqueue().claim().end("fail", "queued").claim(claim=2, attempt=2).end(claim=2)
    assert kinds(story.faults()) == ["attempts", "attempts"]  # to queue it was wrong already


def test_an_attempt_that_was_not_given_is_found() -> None:
    story = Story(Job("a", "", max_attempts=2)).enqueue().claim().end("fail", "failed")
    assert kinds(story.faults()) == ["attempts"]
    story.jobs["a"] = replace(story.jobs["a"], gives_up=True)
    assert story.faults() == []


def test_an_attempt_with_a_wrong_number_is_found() -> None:
    story = Story(Job("a", "", max_attempts=3)).enqueue().claim(attempt=2).end()
    assert kinds(story.faults()) == ["attempts"]


def test_an_attempt_that_ends_as_another_is_found() -> None:
    story = Story(Job("a", "", max_attempts=3)).enqueue().claim()
    story("a", "complete", "succeeded", claim=1, attempt=2)
    assert kinds(story.faults()) == ["attempts"]


def test_an_attempt_that_was_not_to_count_and_does_is_found() -> None:
    for verb in ("snooze", "release", "reclaim"):
        story = Story(Job("a", "", max_attempts=2)).enqueue().claim().end(verb, "queued")
        assert kinds(story.claim(claim=2, attempt=2).end(claim=2).faults()) == ["attempts"]


def test_a_job_that_fails_when_it_was_lost_too_often_is_no_fault() -> None:
    story = Story(Job("a", "", max_losses=2)).enqueue().claim().end("reclaim", "queued")
    assert story.claim(claim=2).end("reclaim", "failed", claim=2).faults() == []


@pytest.mark.parametrize("verb", ["fail", "time_out", "snooze", "release", "reclaim"])
def test_a_run_that_was_to_stop_ends_as_cancelled(verb: str) -> None:
    story = Story(Job("a", "", max_attempts=2)).enqueue().claim().cancel(to="running")
    assert story.end(verb, "cancelled").faults() == []
    story = Story(Job("a", "", max_attempts=2)).enqueue().claim().end(verb, "cancelled")
    assert kinds(story.faults()) == ["attempts"]


def test_a_run_that_was_to_stop_may_succeed() -> None:
    assert Story().enqueue().claim().cancel(to="running").end().faults() == []


def test_a_loss_too_many_and_one_too_few_are_found() -> None:
    story = Story(Job("a", "", max_losses=1)).enqueue().claim().end("reclaim", "queued")
    assert kinds(story.claim(claim=2).end(claim=2).faults()) == ["attempts"]
    story = Story(Job("a", "", max_losses=2)).enqueue().claim().end("reclaim", "failed")
    assert kinds(story.faults()) == ["attempts"]


def test_a_run_that_was_to_stop_and_is_queued_again_is_found() -> None:
    story = Story(Job("a", "", max_attempts=2)).enqueue().claim().cancel(to="running")
    assert kinds(story.end("fail", "queued").claim(claim=2, attempt=2).end(claim=2).faults()) == [
        "attempts"
    ]


# --- limits, keys, dependencies, schedules


def two_at_once(**members: Any) -> Story:
    """Return the history of two jobs that run at the same time."""
    story = Story(Job("a", "", **members), Job("b", "", **members)).enqueue().enqueue("b")
    return story.claim().claim("b", 2).end().end(job="b", claim=2)


def test_more_jobs_at_once_than_the_limit_of_their_queue_are_found() -> None:
    assert kinds(two_at_once(queue="q").faults(Rules(limits={"q": 1}))) == ["limits"]
    assert two_at_once(queue="q").faults(Rules(limits={"q": 2, "default": 1})) == []


def test_more_jobs_at_once_than_the_limit_of_their_key_are_found() -> None:
    rules = Rules(key_limits={"q": 1})
    assert kinds(two_at_once(queue="q", concurrency_key="k").faults(rules)) == ["limits"]
    assert two_at_once(queue="q").faults(rules) == []


def test_one_job_after_the_other_is_within_the_limit() -> None:
    story = Story(Job("a", "", queue="q"), Job("b", "", queue="q"))
    story.enqueue().enqueue("b").claim().end().claim("b", 2).end(job="b", claim=2)
    assert story.faults(Rules(limits={"q": 1})) == []


def test_two_unended_jobs_with_one_key_are_found() -> None:
    assert kinds(two_at_once(unique_key="k").faults())[0] == "unique"


def test_one_key_after_the_other_and_in_two_queues_is_no_fault() -> None:
    story = Story(Job("a", "", unique_key="k"), Job("b", "", unique_key="k"))
    story.enqueue().claim().end().enqueue("b").claim("b", 2).end(job="b", claim=2)
    assert story.faults() == []
    story.jobs["b"] = replace(story.jobs["b"], queue="q")
    assert story.faults() == []


def test_a_retry_that_takes_a_key_from_its_holder_is_found() -> None:
    story = Story(Job("a", "", unique_key="k"), Job("b", "", unique_key="k"))
    story.enqueue().claim().end("fail", "failed").enqueue("b")("a", "retry", "queued")
    story.claim("b", 2).end(job="b", claim=2).claim(claim=3).end(claim=3)
    assert "unique" in kinds(story.faults())


def test_a_child_that_ran_before_its_parent_succeeded_is_found() -> None:
    child = Job("b", "", depends_on=["a"])
    early = Story(child).enqueue().enqueue("b", "blocked")("b", "unblock", "queued")
    early.claim("b", 1).claim("a", 2).end(job="b", claim=1).end(claim=2)
    assert kinds(early.faults()) == ["dependencies"]
    at_once = Story(child).enqueue().enqueue("b").claim().end()
    assert kinds(at_once.claim("b", 2).end(job="b", claim=2).faults()) == ["dependencies"]
    late = Story(child).enqueue().enqueue("b", "blocked").claim().end()("b", "unblock", "queued")
    assert late.claim("b", 2).end(job="b", claim=2).faults() == []


def test_a_child_that_did_not_wait_for_the_last_of_its_parents_is_found() -> None:
    story = Story(Job("c", "", depends_on=["a", "b"])).enqueue().enqueue("b")
    story.enqueue("c", "blocked").claim().end()("c", "unblock", "queued")
    story.claim("b", 2).end(job="b", claim=2).claim("c", 3).end(job="c", claim=3)
    assert kinds(story.faults()) == ["dependencies"]


def test_a_child_that_runs_though_its_parent_failed_is_found() -> None:
    story = Story(Job("b", "", depends_on=["a"])).enqueue().enqueue("b", "blocked")
    story.claim().end("fail", "failed")("b", "unblock", "queued")
    assert kinds(story.claim("b", 2).end(job="b", claim=2).faults()) == ["dependencies"]


@pytest.mark.parametrize("verb", ["fail", "reclaim", "time_out", "cancel"])
def test_a_child_is_cancelled_with_its_parent(verb: str) -> None:
    story = Story(Job("a", "", max_losses=1), Job("b", "", depends_on=["a"]))
    story.enqueue().enqueue("b", "blocked")
    story = story.cancel() if verb == "cancel" else story.claim().end(verb, "failed")
    assert story("b", "cancel", "cancelled").faults() == []


def test_a_child_that_is_cancelled_without_its_parent_is_found() -> None:
    story = Story(Job("b", "", depends_on=["a"])).enqueue().enqueue("b", "blocked")
    story("b", "cancel", "cancelled").claim().end("fail", "failed")
    assert kinds(story.faults()) == ["dependencies"]


def orphan() -> Story:
    """Return the history of a parent that fails, and of a child that is to outlive it."""
    child = Job("b", "", depends_on=["a"], outlives_parents=True)
    return Story(Job("a", ""), child).enqueue().enqueue("b", to="blocked")


def test_a_child_that_outlives_its_parents_may_run_once_they_have_ended() -> None:
    story = orphan().claim().end("fail", "failed")("b", "unblock", "queued")
    story.retry().claim("b", 2).end(job="b", claim=2)
    story.claim(claim=3).end(claim=3)
    assert story.faults() == []


def test_a_child_that_outlives_its_parents_and_does_not_wait_for_them_is_found() -> None:
    story = orphan()("b", "unblock", "queued").claim("b", 2).end(job="b", claim=2)
    assert kinds(story.claim().end("fail", "failed").faults()) == ["dependencies"]


def test_a_child_that_outlives_its_parents_and_was_cancelled_with_them_is_found() -> None:
    story = orphan().claim().end("fail", "failed")("b", "cancel", "cancelled")
    assert kinds(story.faults()) == ["dependencies"]
    assert story.told("cancel", "acknowledged", job="b", answer="cancelled").faults() == []


def test_a_child_that_was_cancelled_and_retried_does_not_wait_again() -> None:
    story = Story(Job("b", "", depends_on=["a"])).enqueue().enqueue("b", "blocked")
    story.cancel()("b", "cancel", "cancelled").retry("b")
    assert story.claim("b", 1).end(job="b", claim=1).faults() == []


def test_a_tick_that_fired_twice_or_never_is_found() -> None:
    def faults(*ticks: int) -> list[Fault]:
        story = Story()
        for number, tick in enumerate(ticks):
            job = f"job {number}"
            story.enqueue(job, detail={"schedule": "s", "tick": tick})
            story.claim(job, number).end(job=job, claim=number)
        return story.faults(Rules(every_minute=["s"]))

    assert faults(60, 120, 180) == []
    assert kinds(faults(60, 120, 120)) == ["schedules"]
    assert kinds(faults(60, 180)) == ["schedules"]
    assert kinds(faults(60, 90, 120)) == ["schedules"]
    assert kinds(faults()) == ["schedules"]


# --- transactions


def test_half_of_a_transaction_is_found() -> None:
    story = done(ref="order-1")
    assert kinds(story.faults()) == ["transactions"]
    assert kinds(story.faults(orders=frozenset({"order-1", "order-2"}))) == ["transactions"]
    assert story.faults(orders=frozenset({"order-1"})) == []


def test_a_part_of_a_batch_is_found() -> None:
    story = Story(Job("a", "", ref="r.1")).enqueue().claim().end()
    for ref in ("r.1", "r.2"):
        story.log.append(Entry("enqueue", ref, "intent", batch="r"))
    assert kinds(story.faults()) == ["transactions"]
    story.jobs["b"] = Job("b", "", ref="r.2")
    assert story.enqueue("b").claim("b", 2).end(job="b", claim=2).faults() == []
    story = Story()
    story.log = [Entry("enqueue", ref, "intent", batch="r") for ref in ("r.1", "r.2")]
    assert story.faults() == []


def test_an_effect_of_a_run_that_did_not_complete_is_found() -> None:
    story = Story(Job("a", "")).enqueue().claim().end("fail", "failed")
    faults = story.faults(effects=[("a", 1)], with_effects=frozenset({"a"}))
    assert kinds(faults) == ["transactions"]


@pytest.mark.parametrize("effects", [[], [("a", 1), ("a", 1)], [("a", 1), ("a", 2)]])
def test_an_effect_that_is_missing_or_there_twice_is_found(effects: list[tuple[str, int]]) -> None:
    faults = done().faults(effects=effects, with_effects=frozenset({"a"}))
    assert kinds(faults) == ["transactions"]


def test_an_effect_of_the_run_that_succeeded_is_no_fault() -> None:
    assert done().faults(effects=[("a", 1)], with_effects=frozenset({"a"})) == []


# --- logs


def test_the_last_line_of_a_log_may_be_cut_off() -> None:
    whole = '{"op": "enqueue", "ref": "r", "outcome": "intent"}\n'
    assert list(read([whole, '{"op": "enq'])) == [Entry("enqueue", "r", "intent")]


def test_the_logs_of_all_clients_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Log(tmp_path / f"{name}.jsonl").write("enqueue", name, "intent", job=None)
    entries = read_all(tmp_path)
    assert [entry.ref for entry in entries] == ["a", "b"]
    assert entries[0] == Entry("enqueue", "a", "intent", at=entries[0].at, by="a")
    assert (entries[0].at or 0) < (entries[1].at or 0)


def test_a_call_is_unknown_until_it_is_answered_once() -> None:
    intent = Entry("enqueue", "r", "intent")
    answered = Entry("enqueue", "r", "acknowledged", job="a")
    assert outcomes([intent], "enqueue")["r"].outcome == "unknown"
    assert outcomes([intent, intent, answered], "enqueue")["r"] == answered
    not_done = Entry("enqueue", "r", "refused")
    assert outcomes([intent, intent, not_done], "enqueue")["r"].outcome == "unknown"
