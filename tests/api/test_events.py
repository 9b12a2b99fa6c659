"""GET /events and GET /jobs/{id}/events: server-sent events of a real server."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import httpx2
import pytest
from psycopg.types.json import Jsonb

from api import watch
from api.routes import events
from tests.api.conftest import Serve
from tests.support import UNKNOWN_JOB, Connection, claim, enqueue, eventually, one, value


@dataclass
class Message:
    """An event of a stream, or a comment."""

    id: str | None = None
    event: str | None = None
    data: Any = None
    comment: str | None = None


@dataclass
class Stream:
    """A stream that is read beside the test."""

    response: httpx2.Response
    _messages: "Queue[Message | None]" = field(default_factory=Queue)

    def read(self) -> None:
        """Take in all of it."""
        message = Message()
        try:
            for line in self.response.iter_lines():
                name, _, text = line.partition(": ")
                if line == "":
                    self._messages.put(message)
                    message = Message()
                elif name == "":
                    message.comment = text
                elif name == "data":
                    message.data = json.loads(text)
                else:
                    setattr(message, name, text)
        except httpx2.HTTPError:
            pass
        finally:
            self._messages.put(None)

    def next(self) -> Message:
        """Return the next event, which must come."""
        message = self._messages.get(timeout=30)
        assert message is not None
        return message if message.comment is None else self.next()

    def next_comment(self) -> str | None:
        """Return the next comment, before which no event may come."""
        message = self._messages.get(timeout=30)
        assert message is not None
        assert message.data is None
        return message.comment

    def rest(self) -> list[Message]:
        """Return what comes until the stream ends, as it must."""
        messages = []
        while (message := self._messages.get(timeout=30)) is not None:
            messages.append(message)
        return [message for message in messages if message.comment is None]


@contextmanager
def streaming(http: httpx2.Client, path: str, last: Any = None, **options: Any) -> Iterator[Stream]:
    """Open a stream, after the event with the id last."""
    headers = {**options.pop("headers", {})}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    with http.stream("GET", path, headers=headers, **options) as response:
        assert response.status_code == 200, response.read()
        stream = Stream(response)
        thread = threading.Thread(target=stream.read)
        thread.start()
        try:
            yield stream
        finally:
            # Closing it would not end a read that is under way.
            response.extensions["network_stream"].get_extra_info("socket").shutdown(2)
            thread.join()


def event_ids(db: Connection, job_id: Any = None) -> list[str]:
    """Return the ids of all events, or of those of a job, in order."""
    rows = db.execute("select event_id from list_events(null, null, p_job_id => %s)", [job_id])
    return [str(row.event_id) for row in rows]


def complete(db: Connection) -> None:
    """Run a job."""
    held = claim(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])


# /jobs/{id}/events


def test_a_jobs_stream_tells_all_from_its_creation_until_its_end(
    http: httpx2.Client, db: Connection
) -> None:
    job_id = enqueue(db, queue="mail")
    with streaming(http, f"/jobs/{job_id}/events") as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.response.headers["Cache-Control"] == "no-store"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        created = stream.next()
        assert (created.id, created.event) == (event_ids(db)[0], "enqueue")
        held = claim(db)
        claimed = stream.next()
        assert claimed.data == {
            "event_id": int(event_ids(db)[1]),
            "job_id": str(job_id),
            "queue": "mail",
            "at": claimed.data["at"],
            "verb": "claim",
            "from_status": "queued",
            "to_status": "running",
            "claim_id": held.claim_id,
            "actor": claimed.data["actor"],
            "detail": {"worker": None},
            "attempt": 1,
        }
        db.execute("select fail_job(%s, %s, 'x')", [held.id, held.claim_id])
        assert [message.event for message in stream.rest()] == ["fail"]


def test_a_jobs_stream_goes_on_after_an_attempt_that_is_not_the_last(
    http: httpx2.Client, db: Connection
) -> None:
    job_id = enqueue(db, max_attempts=2, retry_delay="0")
    with streaming(http, f"/jobs/{job_id}/events") as stream:
        held = claim(db)
        db.execute("select fail_job(%s, %s, 'x')", [held.id, held.claim_id])
        assert [stream.next().event for _ in range(3)] == ["enqueue", "claim", "fail"]
        complete(db)
        assert [message.event for message in stream.rest()] == ["claim", "complete"]


def test_a_jobs_stream_resumes_after_the_last_event(http: httpx2.Client, db: Connection) -> None:
    job_id = enqueue(db)
    enqueue(db)
    complete(db)
    of_job = event_ids(db, job_id)
    with streaming(http, f"/jobs/{job_id}/events", last=of_job[0]) as stream:
        assert [message.id for message in stream.rest()] == of_job[1:]
    path = f"/jobs/{job_id}/events?last_event_id={of_job[1]}"
    with streaming(http, path) as stream:
        assert [message.id for message in stream.rest()] == of_job[2:]
    with streaming(http, path, last=of_job[0]) as stream:
        assert [message.id for message in stream.rest()] == of_job[1:]


def test_who_has_seen_the_end_of_a_job_is_told_not_to_come_back(
    http: httpx2.Client, db: Connection
) -> None:
    job_id = enqueue(db)
    complete(db)
    response = http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": event_ids(db)[-1]})
    assert (response.status_code, response.content) == (204, b"")


def test_a_job_that_is_retried_can_be_followed_on(http: httpx2.Client, db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    db.execute("select fail_job(%s, %s, 'x')", [held.id, held.claim_id])
    last = event_ids(db)[-1]
    db.execute("select retry_job(%s)", [job_id])
    with streaming(http, f"/jobs/{job_id}/events", last=last) as stream:
        assert stream.next().event == "retry"
        complete(db)
        assert [message.event for message in stream.rest()] == ["claim", "complete"]


def test_a_jobs_stream_tells_its_progress(http: httpx2.Client, db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    with streaming(http, f"/jobs/{job_id}/events") as stream:
        assert [stream.next().event for _ in range(2)] == ["enqueue", "claim"]
        for progress in ({"done": 1}, {"done": 2}):
            report = "select report_progress(%s, %s, %s)"
            db.execute(report, [job_id, held.claim_id, Jsonb(progress)])
            told = stream.next()
            assert (told.event, told.id) == ("progress", None)
            assert told.data == {"worker": None, "progress": progress}
        db.execute("select complete_job(%s, %s)", [job_id, held.claim_id])
        assert [message.event for message in stream.rest()] == ["complete"]


def test_the_stream_of_a_job_that_is_deleted_ends(http: httpx2.Client, db: Connection) -> None:
    job_id = enqueue(db)
    with streaming(http, f"/jobs/{job_id}/events") as stream:
        stream.next()
        db.execute("delete from jobs where id = %s", [job_id])
        assert stream.rest() == []


def test_a_long_history_comes_whole(http: httpx2.Client, db: Connection) -> None:
    job_id = enqueue(db)
    for _ in range(120):
        held = claim(db)
        db.execute("select release_job(%s, %s)", [held.id, held.claim_id])
    complete(db)
    with streaming(http, f"/jobs/{job_id}/events") as stream:
        assert [message.id for message in stream.rest()] == event_ids(db)


@pytest.mark.parametrize("path", ["/events", f"/jobs/{UNKNOWN_JOB}/events"])
@pytest.mark.parametrize("last", ["x", "-1", "1.5", str(2**63)])
def test_an_id_that_no_event_has_is_422(http: httpx2.Client, path: str, last: str) -> None:
    assert http.get(path, headers={"Last-Event-ID": last}).status_code == 422
    assert http.get(path, params={"last_event_id": last}).status_code == 422


def test_an_unknown_job_has_no_stream(http: httpx2.Client) -> None:
    response = http.get(f"/jobs/{UNKNOWN_JOB}/events")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


# /events


def test_the_stream_tells_what_happens_from_now_on(http: httpx2.Client, db: Connection) -> None:
    enqueue(db)
    with streaming(http, "/events") as stream:
        second = enqueue(db)
        told = stream.next()
        assert (told.event, told.data["job_id"]) == ("enqueue", str(second))
        complete(db)
        assert [stream.next().event for _ in range(2)] == ["claim", "complete"]


def test_the_stream_tells_of_the_queues_that_were_asked_for(
    http: httpx2.Client, db: Connection
) -> None:
    queues = ["a", "b", "c", "a"]
    with streaming(http, "/events?queue=a&queue=c") as stream:
        for queue in queues:
            enqueue(db, queue=queue)
        assert [stream.next().data["queue"] for _ in range(3)] == ["a", "c", "a"]
    with streaming(http, "/events?queue=b", last=0) as stream:
        assert stream.next().data["queue"] == "b"


def test_the_stream_resumes_after_the_last_event_and_goes_on_with_what_happens(
    http: httpx2.Client, db: Connection
) -> None:
    db.execute("select enqueue_job() from generate_series(1, 2500)")
    ids = event_ids(db)
    with streaming(http, "/events") as other:
        enqueue(db)
        other.next()
        with streaming(http, "/events", last=ids[0]) as stream:
            enqueue(db)
            assert [stream.next().id for _ in range(2501)] == event_ids(db)[1:]
            enqueue(db)
            assert stream.next().id == event_ids(db)[-1]


def test_an_event_that_is_committed_after_later_ones_is_not_missed(
    http: httpx2.Client, db: Connection, connect: Callable[[], Connection]
) -> None:
    slow = connect()
    first = enqueue(db)
    with (
        streaming(http, "/events", last=0) as stream,
        streaming(http, "/events", last=0) as behind,
    ):
        for reader in (stream, behind):
            assert reader.next().data["job_id"] == str(first)
        with slow.transaction():
            late = enqueue(slow)
            early = enqueue(db)
            # One connection watches both: once it has told of this one, it has looked.
            with streaming(http, f"/jobs/{early}/events") as other:
                other.next()
        for reader in (stream, behind):
            assert [reader.next().data["job_id"] for _ in range(2)] == [str(late), str(early)]


def test_what_is_rolled_back_keeps_nobody_waiting(
    http: httpx2.Client, db: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    with streaming(http, "/events") as stream:
        with other.transaction(force_rollback=True):
            enqueue(other)
        second = enqueue(db)
        assert stream.next().data["job_id"] == str(second)


def test_a_stream_waits_to_begin_for_what_is_being_written(
    serve: Serve, db: Connection, connect: Callable[[], Connection]
) -> None:
    slow = connect()
    with httpx2.Client(base_url=serve().url, timeout=60) as http:
        slow.execute("begin")
        enqueue(slow)
        enqueue(db)
        beginning: Queue[Any] = Queue()

        def begin() -> None:
            with streaming(http, "/events") as stream:
                beginning.put(value(connect(), "select count(*) from jobs"))
                stream.next()

        thread = threading.Thread(target=begin)
        thread.start()
        eventually(
            lambda: value(
                db,
                "select count(*) from pg_stat_activity where query like '%%pg_snapshot_xmin%%'"
                " and application_name = 'job_queue api'",
            )
        )
        slow.execute("commit")
        assert beginning.get(timeout=30) == 2
        enqueue(db)
        thread.join()


def test_silence_is_broken_by_comments(
    here: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.01)
    with streaming(here, "/events") as stream:
        assert [stream.next_comment() for _ in range(3)] == ["ping"] * 3


def test_who_is_slower_than_what_happens_misses_nothing(
    here: httpx2.Client, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RECENT_EVENTS", 3)
    with streaming(here, "/events") as stream:
        for count in (10, 3, 4, 1):
            db.execute("select enqueue_job() from generate_series(1, %s)", [count])
            expected = event_ids(db)[-count:]
            assert [stream.next().id for _ in range(count)] == expected


def test_large_events_are_not_kept(
    here: httpx2.Client, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RECENT_CHARACTERS", 1)
    with streaming(here, "/events?queue=default") as stream:
        for _ in range(3):
            enqueue(db, queue="other")
            job_id = enqueue(db)
            assert stream.next().data["job_id"] == str(job_id)


@pytest.mark.parametrize("path", ["/events", "/jobs/{}/events"])
def test_a_stream_outlasts_that_the_database_is_away(
    here: httpx2.Client, db: Connection, path: str
) -> None:
    job_id = enqueue(db)
    with streaming(here, path.format(job_id), last=0) as stream:
        assert stream.next().event == "enqueue"
        for _ in range(3):
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name like 'job_queue api%%' and datname = current_database()"
            )
        complete(db)
        assert [stream.next().event for _ in range(2)] == ["claim", "complete"]


def test_the_stream_of_a_key_ends_so_that_it_is_asked_for_again(
    here: httpx2.Client, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = one(db, "select * from create_api_key('a', '{client}', '{mail}')").api_key
    enqueue(db, queue="mail")
    enqueue(db)
    monkeypatch.setattr(events, "LONGEST_STREAM", 0.5)
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)
    headers = {"Authorization": f"Bearer {key}"}
    with streaming(here, "/events?last_event_id=0", headers=headers) as stream:
        assert [message.data["queue"] for message in stream.rest()] == ["mail"]


def test_a_key_sees_no_job_of_another_queue(here: httpx2.Client, db: Connection) -> None:
    key = one(db, "select * from create_api_key('a', '{client}', '{mail}')").api_key
    headers = {"Authorization": f"Bearer {key}"}
    assert here.get(f"/jobs/{enqueue(db)}/events", headers=headers).status_code == 404
    assert here.get("/events?queue=default", headers=headers).status_code == 403


def test_nobody_asks_the_database_while_nobody_follows(here: httpx2.Client, db: Connection) -> None:
    with streaming(here, "/events") as stream:
        enqueue(db)
        stream.next()
    eventually(
        lambda: value(
            db,
            "select query_start < clock_timestamp() - interval '1 second' from pg_stat_activity"
            " where application_name = 'job_queue api watcher' and datname = current_database()",
        )
    )
