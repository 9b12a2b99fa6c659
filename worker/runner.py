"""The worker's loop: tell the queue which runs ended and how, claim the next jobs, and again."""

import json
import logging
import random
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

from worker import metrics
from worker.background import Heart
from worker.connection import Backoff, ClaimRefused, InvalidValue, QueueUnavailable
from worker.executor import Ended, Executor
from worker.metrics import JobTypeMetrics
from worker.outcomes import HandBack
from worker.pulse import Pulse
from worker.queue import Ends, Job, Queue
from worker.registry import Handler
from worker.run import Outcome, Run, Verb
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.waker import Waker

logger = logging.getLogger(__name__)

LONGEST_WAIT = 1.0
"""Seconds between signs of life of the loop."""

SOON = 0.2
"""Within so many seconds a job that is claimed ahead must be able to start."""

NOT_SO_SOON = 2.0
"""Seconds after which a job that was claimed ahead and has not started is handed back."""

BUSY = 8
"""The size of a full batch from which on a worker is too busy to be notified of more."""

MANY = 50
"""From so many runs on that succeeded, it pays to report them over a second connection."""

ENOUGH_WAKES_IN_VAIN = 3
"""After so many notifications in a row that led to no job, the worker polls for a while."""

LONGEST_REPORT = 8_388_608
"""The results, in characters, beyond which a call reports no more runs."""

LAST_CALL = 1.0
"""Seconds before the end of the grace period at which what still runs is told to stop, and seconds
after it that the last calls of the database may take."""

REFUSALS = {
    "JQ002": "there is no such job",
    "JQ003": "the job has ended or is queued again",
    "JQ004": "another claim holds the job",
}


class Abandoned(Exception):
    """The worker had to stop before it could tell the queue how a job ended."""


class Runner:
    """Runs jobs until a stop is asked for."""

    def __init__(
        self,
        settings: Settings,
        handlers: Mapping[str, Handler],
        queue: Queue,
        reports: Queue,
        heart: Heart,
        executor: Executor,
        waker: Waker,
        shutdown: Shutdown,
        pulse: Pulse,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._reports = reports
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="reports")
        self._heart = heart
        self._executor = executor
        self._waker = waker
        self._shutdown = shutdown
        self._pulse = pulse
        self._metrics = {job_type: JobTypeMetrics(job_type) for job_type in handlers}
        self._unreported: list[Ended] = []
        self._report: tuple[Future[Ends], list[Ended]] | None = None
        self._batch = 1
        # Half of what may be held, so that one batch is claimed while another runs.
        self._largest_batch = max(
            settings.concurrency, (settings.concurrency + settings.prefetch) // 2
        )
        self._claim_due_at = 0.0
        self._listen_due_at = 0.0
        self._is_woken = False
        self._wakes_in_vain = 0
        self._failed_at = float("inf")
        self._backoff = Backoff()
        self._has_complained = False
        self.unready_because: str | None = "the database has not been reached yet"
        """Why the worker cannot work now."""

    def run(self) -> None:
        """Claim and run jobs until a stop is asked for; then let them end.

        Raises Abandoned if the database stayed away when the end of a job had to be reported.
        """
        try:
            while not self._shutdown.requested:
                try:
                    self._turn()
                except QueueUnavailable as error:
                    self._is_away(error)
                    self._shutdown.wait(self._backoff.next_delay())
            self._drain()
        finally:
            self._reporter.shutdown()
            self._reports.link.close()
            self._queue.link.close()

    def _turn(self) -> None:
        """Report, claim, and if there is nothing to do, wait until there is."""
        self._look_after_runs()
        for run in self._executor.take_waiting(longer_than=NOT_SO_SOON):
            self._unreported.append((run, Outcome("release", "handed back, as it could not start")))
        if self._report_and_claim():
            return
        self._waker.announce_wait()
        if self._executor.has_ended_runs or self._shutdown.requested:
            return
        self._sleep()

    def _look_after_runs(self) -> None:
        self._pulse.beat("loop")
        self._unreported += self._executor.take_ended()

    def _report_and_claim(self) -> bool:
        """Do what is due; return whether more is waiting to be claimed.

        The end of a run is a reason to look: it may have made room in a queue with a limit.
        """
        if self._report is not None and self._report[0].done():
            self._end_report()
        is_due = bool(self._unreported) or time.monotonic() >= self._claim_due_at
        self._report_failures()
        limit = self._claim_limit() if is_due else 0
        reason = self._heart.unwell_because
        if limit == 0 or reason is not None:
            self._end_report()
            self._report_completions()
            if limit and reason is not None:
                raise QueueUnavailable(reason)
            if self._heart.beaten_at > self._failed_at:
                self._is_reached()
            return False
        jobs, is_fresh = self._report_completions_and_claim(limit)
        self._is_reached()
        self._judge_wake(bool(jobs))
        if len(jobs) < limit and not is_fresh:
            self._batch = max(len(jobs), 1)
            self._claim_due_at = 0.0
            return True
        if len(jobs) < limit:
            self._batch = max(len(jobs), 1)
            jitter = random.uniform(0.75, 1.0)
            self._claim_due_at = time.monotonic() + self._settings.poll_seconds * jitter
            return False
        if self._batch >= BUSY:
            self._stop_listening()
        self._batch = min(self._batch * 2, self._largest_batch)
        self._claim_due_at = 0.0
        return True

    def _claim_limit(self) -> int:
        """Return how many jobs to claim now: no more than can start soon."""
        running, waiting = self._executor.counts
        ahead = min(self._settings.prefetch, self._executor.could_start_within(SOON))
        if waiting > ahead // 2:
            return 0
        room = self._settings.concurrency - running - waiting + ahead
        return max(min(room, self._batch), 0)

    def _start(self, jobs: list[Job]) -> None:
        runs = [Run(job) for job in jobs]
        for job in jobs:
            self._metrics[job.job_type].claimed(job)
        if logger.isEnabledFor(logging.INFO):
            for run in runs:
                logger.info("job %s claimed", run.job.id, extra=run.ids)
        self._executor.add(runs)

    # How runs ended. Each method drops from _unreported what the queue knows.

    def _report_failures(self) -> None:
        """Report all that did not succeed."""
        by_verb: dict[Verb, list[Ended]] = {}
        for ended in self._unreported:
            if ended[1].verb != "complete":
                by_verb.setdefault(ended[1].verb, []).append(ended)
        if nothing := by_verb.get("nothing"):
            self._reported(nothing, {})
        if failed := by_verb.get("fail"):
            self._reported(failed, self._fail(failed))
        if released := by_verb.get("release"):
            self._reported(released, self._queue.release(run.job for run, _ in released))
        for run, outcome in by_verb.get("snooze", []):
            assert outcome.delay is not None
            try:
                self._queue.snooze(run.job, outcome.delay)
                self._reported([(run, outcome)], {})
            except ClaimRefused as error:
                self._reported([(run, outcome)], {run.job.claim_id: str(error)})

    def _fail(self, failed: list[Ended]) -> Ends:
        try:
            return self._queue.fail((run.job, _failure_members(outcome)) for run, outcome in failed)
        except InvalidValue as error:
            logger.warning("errors that could not be stored: %s", error)
        unstorable = "failed, with an error that could not be stored"
        return self._queue.fail(
            (run.job, _failure_members(outcome._replace(text=unstorable)))
            for run, outcome in failed
        )

    def _report_completions_and_claim(self, limit: int) -> tuple[list[Job], bool]:
        """Return the jobs claimed, and whether the claim knew of all that has been reported."""
        while len(completed := self._completed()) < self._completed_count:
            self._report_completions()
        if self._report is None and len(completed) >= MANY:
            self._begin_report(completed)
        if self._report is None:
            jobs = self._report_and_claim_at_once(completed, limit)
            self._start(jobs)
            return jobs, True
        jobs = self._queue.claim(limit)
        self._start(jobs)
        if len(jobs) < limit:
            self._end_report()
        return jobs, False

    def _begin_report(self, completed: list[Ended]) -> None:
        """Report over the second connection, for which the server has a process of its own.

        Meanwhile the next jobs are claimed, and the next but one.
        """
        ends = [(run.job, outcome.text) for run, outcome in completed]
        self._drop(completed)
        self._report = (self._reporter.submit(self._reports.complete, ends), completed)

    def _end_report(self) -> None:
        """Wait for the report that is under way, if any, and note what became of it."""
        if self._report is None:
            return
        (ends, completed), self._report = self._report, None
        try:
            self._forget(completed, ends.result())
        except InvalidValue:
            self._unreported += completed
            self._report_completions_singly()
        except QueueUnavailable:
            self._unreported += completed
            raise

    def _report_and_claim_at_once(self, completed: list[Ended], limit: int) -> list[Job]:
        if not completed:
            return self._queue.claim(limit)
        try:
            ends, jobs = self._queue.complete_and_claim(
                ((run.job, outcome.text) for run, outcome in completed), limit
            )
        except InvalidValue:
            self._report_completions_singly()
            return self._queue.claim(limit)
        self._reported(completed, ends)
        return jobs

    def _report_completions(self) -> None:
        completed = self._completed()
        if not completed:
            return
        try:
            ends = self._queue.complete((run.job, outcome.text) for run, outcome in completed)
        except InvalidValue:
            self._report_completions_singly()
        else:
            self._reported(completed, ends)

    def _report_completions_singly(self) -> None:
        """Find the results that the database does not take, and fail their jobs."""
        for run, outcome in self._completed():
            try:
                ends = self._queue.complete([(run.job, outcome.text)])
            except InvalidValue as error:
                refused = Outcome("fail", f"the result could not be stored: {error}", False)
                self._unreported.remove((run, outcome))
                self._unreported.append((run, refused))
            else:
                self._reported([(run, outcome)], ends)
        self._report_failures()

    def _completed(self) -> list[Ended]:
        """Return the runs that succeeded, as many as one call can report."""
        completed = [ended for ended in self._unreported if ended[1].verb == "complete"]
        sizes = accumulate(len(outcome.text) for _, outcome in completed)
        return completed[: 1 + sum(size <= LONGEST_REPORT for size in sizes)]

    @property
    def _completed_count(self) -> int:
        return sum(outcome.verb == "complete" for _, outcome in self._unreported)

    def _reported(self, ended: list[Ended], ends: Ends) -> None:
        self._drop(ended)
        self._forget(ended, ends)

    def _drop(self, ended: list[Ended]) -> None:
        if len(ended) == len(self._unreported):
            self._unreported = []
        else:
            known = {run.job.claim_id for run, _ in ended}
            self._unreported = [one for one in self._unreported if one[0].job.claim_id not in known]

    def _forget(self, ended: list[Ended], ends: Ends) -> None:
        for run, outcome in ended:
            self._executor.forget(run)
            refusal = ends.get(run.job.claim_id)
            seconds = run.seconds
            lost = refusal is not None or (outcome.verb == "nothing" and not run.completed)
            verb = "lost" if lost else "complete" if run.completed else outcome.verb
            self._metrics[run.job.job_type].ended(verb, seconds)
            _log_end(run, outcome, refusal, seconds)

    # Waiting

    def _sleep(self) -> None:
        """Wait for the end of a run, a notification, or the time of the next look."""
        link = self._queue.link
        has_room = sum(self._executor.counts) < self._settings.concurrency
        if has_room and self._start_listening():
            return
        seconds = LONGEST_WAIT
        if has_room:
            seconds = min(seconds, max(self._claim_due_at - time.monotonic(), 0.0))
        if not link.notified():
            is_readable = self._waker.wait(seconds, link.fileno() if link.is_open else None)
            if not (is_readable and link.notified()):
                return
        if has_room:
            self._claim_due_at = 0.0
            self._is_woken = True
        else:
            self._stop_listening()

    def _judge_wake(self, has_found_jobs: bool) -> None:
        """Poll for a while if notifications tell of jobs that are not for this worker."""
        if has_found_jobs:
            self._wakes_in_vain = 0
        elif self._is_woken:
            self._wakes_in_vain += 1
            if self._wakes_in_vain == ENOUGH_WAKES_IN_VAIN:
                self._wakes_in_vain = 0
                self._stop_listening()
                self._listen_due_at = time.monotonic() + self._settings.poll_seconds
        self._is_woken = False

    def _start_listening(self) -> bool:
        """Ask to be notified of new jobs; return whether that is new: look once more then."""
        link = self._queue.link
        if not (self._settings.listen and link.has_session) or link.is_listening:
            return False
        if time.monotonic() < self._listen_due_at:
            return False
        self._listen_due_at = time.monotonic() + self._settings.poll_seconds
        link.is_listening = self._queue.start_listening(self._settings.queues.names)
        if link.is_listening:
            self._claim_due_at = 0.0
        return link.is_listening

    def _stop_listening(self) -> None:
        """Spare those who enqueue the notifications."""
        if self._queue.link.is_listening:
            self._queue.stop_listening(self._settings.queues.names)
            self._queue.link.is_listening = False
            self._listen_due_at = 0.0

    def _is_away(self, error: QueueUnavailable) -> None:
        """Say why, but say it once."""
        metrics.UNAVAILABLE.labels("loop").inc()
        self._failed_at = time.monotonic()
        self._claim_due_at = self._listen_due_at = 0.0  # nobody told of what came meanwhile
        if str(error) != self.unready_because:
            self.unready_because = str(error)
            self._has_complained = True
            logger.warning("waiting for the queue: %s", error)

    def _is_reached(self) -> None:
        metrics.LAST_ANSWER.set_to_current_time()
        if self.unready_because is not None:
            if self._has_complained:
                logger.info("the queue answers")
            self._has_complained = False
            self.unready_because = None
            self._backoff.reset()

    # The end

    def _drain(self) -> None:
        """Let what runs end within the grace period, and hand back the rest."""
        told_at = min(LAST_CALL, self._settings.grace_seconds / 4)
        is_told = False
        while True:
            self._look_after_runs()
            for run in self._executor.take_waiting():
                self._unreported.append((run, Outcome("release", "handed back, unstarted")))
            seconds_left = self._shutdown.seconds_left()
            if seconds_left <= told_at and not is_told:
                is_told = True
                for run in self._executor.running():
                    run.stop(HandBack("handed back"))
            if seconds_left <= 0:
                self._give_up_what_runs()
            self._queue.link.limit_calls(max(seconds_left, 0.0) + LAST_CALL)
            try:
                self._end_report()
                self._report_failures()
                while self._completed():
                    self._report_completions()
            except QueueUnavailable as error:
                if seconds_left <= 0:
                    raise Abandoned(f"the end of a job could not be recorded: {error}") from None
                self._is_away(error)
                time.sleep(min(self._backoff.next_delay(), max(seconds_left, 0.0)))
                continue
            if seconds_left <= 0 or not self._executor.held():
                return
            self._waker.announce_wait()
            if not self._executor.has_ended_runs:
                next_step = seconds_left - (0.0 if is_told else told_at)
                self._waker.wait(min(LONGEST_WAIT, next_step))

    def _give_up_what_runs(self) -> None:
        """Hand back all that has not ended by now."""
        running = self._executor.running()  # before what has ended: a run is in one or the other
        self._unreported += self._executor.take_ended()
        known = {run.job.claim_id for run, _ in self._unreported}
        for run in running:
            if run.job.claim_id not in known:
                self._unreported.append((run, Outcome("release", "handed back, running")))


def _failure_members(outcome: Outcome) -> str:
    """Return what fail_jobs is to know of a failure, as JSON that a database in UTF-8 takes."""
    error = outcome.text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    members = {"error": error.encode(errors="replace").decode(), "retryable": outcome.retryable}
    if outcome.delay is not None:
        members["retry_in"] = f"{outcome.delay.total_seconds():.6f} seconds"
    return ", " + json.dumps(members)[1:-1]


def _log_end(run: Run, outcome: Outcome, refusal: str | None, seconds: float | None) -> None:
    level = logging.INFO
    if outcome.verb == "complete" and refusal is None and not logger.isEnabledFor(level):
        return
    ended = outcome.text
    if refusal is not None:
        level = logging.WARNING
        ended = f"discarded, {REFUSALS.get(refusal, refusal)},"
    elif outcome.verb == "complete":
        ended = "succeeded"
    elif outcome.verb == "fail":
        level = logging.WARNING
        ended = f"failed ({' '.join(outcome.text.split())[:500]})"
    elif outcome.verb == "snooze":
        ended = f"snoozed for {outcome.delay}"
    elif outcome.verb == "nothing" and not run.completed:
        level = logging.WARNING
        ended = f"discarded, {outcome.text},"
    after = "" if seconds is None else f" after {seconds:.1f} s"
    text = f"job {run.job.id} {ended}{after}"
    if outcome.traceback is not None:
        text += f"\n{outcome.traceback}"
    logger.log(level, "%s", text, extra={**run.ids, "duration_seconds": seconds})
