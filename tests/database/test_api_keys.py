"""create_api_key, revoke_api_key, list_api_keys, authorize: who may call what, how often."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    in_another_thread,
    one,
    raises_and_changes_nothing,
    value,
    wait_until_blocked,
)

ALL_SCOPES = ["client", "worker", "operator"]


class Key:
    """A key, as its holder knows it."""

    def __init__(self, db: Connection, scopes: list[str] | None = None, **options: Any) -> None:
        named = "".join(f", p_{name} => %({name})s" for name in options)
        made = db.execute(
            f"select * from create_api_key('me', %(scopes)s{named})",
            {"scopes": scopes or ALL_SCOPES, **options},
        ).fetchone()
        assert made is not None
        self.key_id: str = made.key_id
        self.text: str = made.api_key
        self.hash = sha256(self.text.encode()).digest()

    def calls(self, db: Connection, function: str = "get_job", **concerns: Any) -> Any:
        """Ask whether the key may call this, and return the answer."""
        named = "".join(f", p_{name} => %({name})s" for name in concerns)
        [allowed] = db.execute(
            f"select * from authorize(%(key_id)s, %(hash)s, %(function)s{named})",
            {"key_id": self.key_id, "hash": self.hash, "function": function, **concerns},
        ).fetchall()
        return allowed


@contextmanager
def refused(db: Connection, sqlstate: str, match: str) -> Iterator[None]:
    """Expect this SQLSTATE, before anything has changed."""
    keys = "select key_id, last_used_at, revoked_at from api_keys order by key_id"
    before = db.execute(keys).fetchall()
    with raises_and_changes_nothing(db, sqlstate, match):
        yield
    assert db.execute(keys).fetchall() == before


def clocks(db: Connection) -> list[str]:
    """Return the sequences that are clocks of rate limits of keys."""
    rows = db.execute("select relname from pg_class where relname like 'key\\_clock\\_%'")
    return [row.relname for row in rows]


def rest(db: Connection, key: Key, seconds: float) -> None:
    """Have the key's last requests been made that much earlier."""
    db.execute(
        f"select setval('key_clock_{key.key_id}', last_value - %s) from key_clock_{key.key_id}",
        [int(seconds * 1_000_000)],
    )


# Making, revoking and listing


def test_a_new_key_is_returned_once_and_only_its_hash_is_kept(db: Connection) -> None:
    key = Key(db, queues=["mail"], expires_in="1 day", rate_limit=5, rate_period="1 hour")
    assert re.fullmatch(rf"jq_{key.key_id}_[0-9a-f]{{64}}", key.text)
    assert re.fullmatch("[0-9a-f]{12}", key.key_id)
    stored = one(db, "select key.*, key::text as whole from api_keys as key")
    assert stored.secret_hash == key.hash
    assert key.text.split("_")[2] not in stored.whole
    assert stored.name == "me"
    assert stored.scopes == ALL_SCOPES
    assert stored.queues == ["mail"]
    assert (stored.expires_at - stored.created_at).days in (0, 1)
    assert stored.created_by == value(db, "select session_user")


def test_two_keys_have_nothing_in_common(db: Connection) -> None:
    one_key, other_key = Key(db).text.split("_"), Key(db).text.split("_")
    assert one_key[1] != other_key[1]
    assert one_key[2] != other_key[2]


@pytest.mark.parametrize(
    "arguments",
    [
        "null, '{client}'",
        "'', '{client}'",
        "repeat('n', 101), '{client}'",
        "'me', null",
        "'me', '{}'",
        "'me', '{client,root}'",
        "'me', array['client', null]",
        "'me', '{client}', '{}'",
        "'me', '{client}', array['mail', null]",
        "'me', '{client}', array['']",
        "'me', '{client}', array[repeat('q', 101)]",
        "'me', '{client}', null, '0'",
        "'me', '{client}', null, '-1 s'",
        "'me', '{client}', null, '101 years'",
        "'me', '{client}', null, null, 0",
        "'me', '{client}', null, null, 1000001",
        "'me', '{client}', null, null, 5, '0'",
        "'me', '{client}', null, null, 5, '2 years'",
        "'me', '{client}', null, null, 1000000, '999 ms'",
    ],
)
def test_a_wrong_argument_of_a_key_is_refused(db: Connection, arguments: str) -> None:
    with refused(db, "JQ001", "^invalid "):
        db.execute(f"select create_api_key({arguments})")
    assert value(db, "select count(*) from api_keys") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "repeat('n', 100), '{client,worker,operator}', array[repeat('q', 100)], '100 years'",
        "'me', '{client}', null, null, 1000000, '1 s'",
        "'me', '{client}', null, null, 1, '1 year'",
        "'me', '{client}', null, '1 us', 1, null",
    ],
)
def test_the_extremes_of_a_key_are_allowed(db: Connection, arguments: str) -> None:
    assert value(db, f"select api_key from create_api_key({arguments})")


def test_a_key_is_listed_with_what_it_is_good_for_but_without_its_hash(db: Connection) -> None:
    first, second = Key(db, ["client"]), Key(db, ["worker"], queues=["a"], rate_limit=5)
    listed = db.execute("select * from list_api_keys()").fetchall()
    assert [row.key_id for row in listed] == [first.key_id, second.key_id]
    assert (listed[1].scopes, listed[1].queues, listed[1].rate_limit) == (["worker"], ["a"], 5)
    assert not any(isinstance(member, bytes) for row in listed for member in row)
    assert db.execute("select * from list_api_keys(%s)", [second.key_id]).fetchall() == listed[1:]
    assert db.execute("select * from list_api_keys('nobody')").fetchall() == []


def test_one_statement_can_make_a_key_and_list_it(db: Connection) -> None:
    row = one(
        db,
        "select made.key_id, key.name from create_api_key('me', '{client}') as made"
        " cross join lateral list_api_keys(made.key_id) as key",
    )
    assert row.name == "me"


def test_a_revoked_key_stays_revoked_and_listed(db: Connection) -> None:
    key = Key(db)
    revoke = "select revoke_api_key(%s), (select revoked_at from list_api_keys(%s))"
    db.execute(revoke, [key.key_id, key.key_id])
    at = one(db, "select * from list_api_keys()").revoked_at
    assert at is not None
    db.execute(revoke, [key.key_id, key.key_id])
    assert one(db, "select * from list_api_keys()").revoked_at == at


@pytest.mark.parametrize("key_id", ["012345678901", "", None])
def test_an_unknown_key_cannot_be_revoked(db: Connection, key_id: str | None) -> None:
    Key(db)
    with refused(db, "JQ002", f"API key {key_id if key_id is not None else 'null'} does not exist"):
        db.execute("select revoke_api_key(%s)", [key_id])


# Whose key it is


def test_without_a_key_nothing_is_checked(db: Connection) -> None:
    asked = "select * from authorize(null, null, %s, %s, array[%s]::uuid[])"
    for function, queues in [("enqueue_job", None), ("nonsense", ["a"]), (None, None)]:
        assert one(db, asked, function, queues, UNKNOWN_JOB) == (None, queues, *[None] * 4)


def test_the_holder_of_a_key_is_known_by_its_id(db: Connection) -> None:
    key = Key(db)
    assert key.calls(db) == (key.key_id, None, None, None, None, None)


@pytest.mark.parametrize(
    "flaw", ["unknown", "wrong", "no hash", "empty hash", "expired", "revoked"]
)
def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(db: Connection, flaw: str) -> None:
    key = Key(db, expires_in="1 hour", rate_limit=5)
    if flaw == "unknown":
        key.key_id = "012345678901"
    elif flaw == "wrong":
        key.hash = sha256(b"another").digest()
    elif flaw == "no hash":
        key.hash = None  # type: ignore[assignment]
    elif flaw == "empty hash":
        key.key_id, key.hash = "012345678901", b""
    elif flaw == "expired":
        db.execute("update api_keys set expires_at = clock_timestamp()")
    else:
        db.execute("select revoke_api_key(%s)", [key.key_id])
    with refused(db, "JQ008", "^the API key is not valid\n"):
        key.calls(db)


def test_the_hash_of_one_key_does_not_open_another(db: Connection) -> None:
    key, other = Key(db), Key(db)
    key.hash = other.hash
    with refused(db, "JQ008", "not valid"):
        key.calls(db)


def test_the_use_of_a_key_is_noted_once_a_minute(db: Connection) -> None:
    key = Key(db)
    used = "select last_used_at from api_keys"
    assert value(db, used) is None
    key.calls(db)
    first = value(db, used)
    assert first is not None
    key.calls(db)
    assert value(db, used) == first
    db.execute("update api_keys set last_used_at = last_used_at - interval '61 s'")
    key.calls(db)
    assert value(db, used) >= first


def test_nobody_waits_to_note_the_use_of_a_key(connect: Callable[[], Connection]) -> None:
    db, other = connect(), connect()
    key = Key(db)
    db.execute("begin")
    key.calls(db)  # has its row locked
    other.execute("set lock_timeout = '1 ms'")
    assert key.calls(other).client == key.key_id
    db.execute("commit")
    assert value(db, "select last_used_at from api_keys") is not None


def test_a_key_is_refused_once_its_revocation_commits(connect: Callable[[], Connection]) -> None:
    db, other = connect(), connect()
    key = Key(db)
    key.calls(db)
    db.execute("begin")
    db.execute("select revoke_api_key(%s)", [key.key_id])
    assert key.calls(other).client == key.key_id
    db.execute("commit")
    with refused(other, "JQ008", "not valid"):
        key.calls(other)


def test_of_two_revocations_the_second_waits_and_leaves_the_time_of_the_first(
    connect: Callable[[], Connection],
) -> None:
    first, second, observer = connect(), connect(), connect()
    key = Key(observer)
    first.execute("begin")
    first.execute("select revoke_api_key(%s)", [key.key_id])
    at = value(first, "select revoked_at from api_keys")
    with in_another_thread(
        lambda: second.execute("select revoke_api_key(%s)", [key.key_id])
    ) as late:
        wait_until_blocked(observer, second, by=first)
        first.execute("commit")
        late.result()
    assert value(observer, "select revoked_at from api_keys") == at


# What it is good for


@pytest.mark.parametrize("scope", ALL_SCOPES)
def test_a_scope_may_call_what_its_role_may_and_nothing_else(db: Connection, scope: str) -> None:
    key = Key(db, [scope])
    objects = db.execute(
        "select proname as name, has_function_privilege(%(role)s, oid, 'execute') as is_allowed"
        "  from pg_proc where pronamespace = 'job_queue'::regnamespace"
        " union all"
        " select relname, has_table_privilege(%(role)s, oid, 'select')"
        "  from pg_class where relnamespace = 'job_queue'::regnamespace"
        "   and relkind in ('r', 'v', 'i', 'S')",
        {"role": f"job_queue_{scope}"},
    ).fetchall()
    assert {row.is_allowed for row in objects} == {True, False}
    for row in objects:
        if row.is_allowed:
            assert key.calls(db, row.name).client == key.key_id
        else:
            with pytest.raises(
                psycopg.DatabaseError, match=f"does not allow {row.name}\n"
            ) as raised:
                key.calls(db, row.name)
            assert raised.value.sqlstate == "JQ009"
            assert scope in str(raised.value.diag.message_hint)


def test_a_key_of_two_scopes_may_do_what_either_may(db: Connection) -> None:
    key = Key(db, ["client", "operator"])
    key.calls(db, "enqueue_job")
    key.calls(db, "pause_queue")
    with refused(db, "JQ009", "does not allow claim_jobs"):
        key.calls(db, "claim_jobs")


@pytest.mark.parametrize(
    "function",
    [
        None,
        "",
        "nothing",
        "job_queue.get_job",
        "get_job(uuid)",
        '"',
        "GET_JOB",
        "pg_sleep",
        "x" * 99,
    ],
)
def test_what_is_no_function_of_the_queue_is_not_allowed(
    db: Connection, function: str | None
) -> None:
    key = Key(db)
    with refused(db, "JQ009", "^the API key does not allow "):
        key.calls(db, function)  # type: ignore[arg-type]


def test_a_right_that_a_role_loses_its_keys_lose_too(db: Connection) -> None:
    key = Key(db, ["client"])
    with db.transaction(force_rollback=True):
        key.calls(db, "cancel_job")
        db.execute("revoke execute on function cancel_job from job_queue_client")
        with pytest.raises(psycopg.DatabaseError, match="does not allow cancel_job"):
            key.calls(db, "cancel_job")


# Which queues it may touch


def test_a_key_without_queues_may_name_any_queue_and_any_job(db: Connection) -> None:
    key, job_id = Key(db), enqueue(db, queue="a")
    assert key.calls(db, queues=["a", "b"], job_ids=[job_id]).queues == ["a", "b"]


def test_a_restricted_key_gets_its_queues_where_none_is_named(db: Connection) -> None:
    key = Key(db, queues=["a", "b"])
    assert key.calls(db, "list_jobs").queues == ["a", "b"]
    assert key.calls(db, "list_jobs", queues=["b"]).queues == ["b"]
    assert key.calls(db, "list_jobs", queues=[]).queues == []


@pytest.mark.parametrize("queues", [["c"], ["a", "c"], [None], ["a", None], ["A"], [""]])
def test_a_restricted_key_may_name_no_other_queue(db: Connection, queues: list[str]) -> None:
    key = Key(db, queues=["a", "b"])
    with refused(db, "JQ009", f"does not allow queue {next(q or '' for q in queues if q != 'a')}"):
        key.calls(db, "list_jobs", queues=queues)


def test_a_restricted_key_sees_jobs_of_other_queues_as_if_they_were_not_there(
    db: Connection,
) -> None:
    key = Key(db, queues=["a", "b"])
    own, others = enqueue(db, queue="a"), enqueue(db, queue="c")
    assert key.calls(db, job_ids=[own]).queues == ["a", "b"]
    for job_ids in ([others], [own, others]):
        with refused(db, "JQ002", f"^job {others} does not exist"):
            key.calls(db, job_ids=job_ids)
    assert key.calls(db, job_ids=[own, UUID(UNKNOWN_JOB)]).queues == ["a", "b"]


def test_what_is_said_of_a_job_of_another_queue_is_what_is_said_of_none(db: Connection) -> None:
    key, others = Key(db, queues=["a"]), enqueue(db, queue="c")
    with pytest.raises(psycopg.DatabaseError) as hidden:
        key.calls(db, "cancel_job", job_ids=[others])
    with pytest.raises(psycopg.DatabaseError) as missing:
        db.execute("select cancel_job(%s)", [UNKNOWN_JOB])
    said, would_say = hidden.value.diag, missing.value.diag
    assert (said.message_primary or "").replace(
        str(others), UNKNOWN_JOB
    ) == would_say.message_primary
    assert (said.sqlstate, said.message_hint) == (would_say.sqlstate, would_say.message_hint)
    assert said.message_detail == would_say.message_detail


def test_a_restricted_key_may_name_no_claim_of_another_queue(db: Connection) -> None:
    key = Key(db, queues=["a"])
    enqueue(db, queue="a")
    own = claim(db)
    enqueue(db, queue="c")
    others = claim(db)
    key.calls(db, "heartbeat", claim_ids=[own.claim_id])
    with refused(db, "JQ009", f"does not allow claim {others.claim_id}"):
        key.calls(db, "heartbeat", claim_ids=[own.claim_id, others.claim_id])


def test_a_claim_that_has_gone_is_for_the_function_to_find(db: Connection) -> None:
    key = Key(db, queues=["a"])
    assert key.calls(db, "complete_job", claim_ids=[12345]).queues == ["a"]


BOUNDED = {
    "list_jobs",
    "list_dead_jobs",
    "list_events",
    "settled_events",
    "list_queues",
    "queue_statistics",
    "cancel_jobs",
    "retry_jobs",
    "claim_next_job",
    "claim_jobs",
}


def test_a_restricted_key_that_names_nothing_may_call_only_what_its_queues_bound(
    db: Connection,
) -> None:
    key, free = Key(db, queues=["a"]), Key(db)
    named = db.execute(
        "select proname as name from pg_proc where pronamespace = 'job_queue'::regnamespace"
        "  and (has_function_privilege('job_queue_client', oid, 'execute')"
        "    or has_function_privilege('job_queue_worker', oid, 'execute')"
        "    or has_function_privilege('job_queue_operator', oid, 'execute'))"
        " union all select unnest('{queue_statistics,workers,health}'::text[])"
    ).fetchall()
    assert {row.name for row in named} > BOUNDED
    for row in named:
        free.calls(db, row.name)
        if row.name in BOUNDED:
            assert key.calls(db, row.name).queues == ["a"]
        else:
            with pytest.raises(psycopg.DatabaseError, match=f"allow {row.name}\n") as raised:
                key.calls(db, row.name)
            assert raised.value.sqlstate == "JQ009"


def test_queues_give_no_right_that_the_scopes_do_not(db: Connection) -> None:
    key = Key(db, ["client"], queues=["a"])
    with refused(db, "JQ009", "does not allow pause_queue"):
        key.calls(db, "pause_queue", queues=["a"])


# How often


def test_a_key_may_make_as_many_requests_as_its_limit_and_is_told_how_it_stands(
    db: Connection,
) -> None:
    key = Key(db, rate_limit=3, rate_period="1 hour")
    for left in (2, 1, 0):
        allowed = key.calls(db)
        assert (allowed.rate_limit, allowed.rate_period.total_seconds()) == (3, 3600)
        assert allowed.rate_remaining == left
        assert 3600 * (3 - left) / 3 - 60 < allowed.rate_reset.total_seconds() <= 1200 * (3 - left)
    with refused(db, "JQ010", "^too many requests: the API key may make 3 in 01:00:00\n"):
        key.calls(db)


def test_too_many_requests_are_told_how_many_seconds_to_wait(db: Connection) -> None:
    key = Key(db, rate_limit=2, rate_period="1 hour")
    key.calls(db), key.calls(db)
    with pytest.raises(psycopg.DatabaseError) as raised:
        key.calls(db)
    wait = float(raised.value.diag.message_detail or "")
    assert 1700 < wait <= 1800
    rest(db, key, wait - 60)
    with refused(db, "JQ010", "too many requests"):
        key.calls(db)
    rest(db, key, 60)
    assert key.calls(db).rate_remaining == 0


def test_a_refused_request_does_not_make_the_wait_longer(db: Connection) -> None:
    key = Key(db, rate_limit=1, rate_period="1 hour")
    key.calls(db)
    used = f"select last_value from key_clock_{key.key_id}"
    before = value(db, used)
    for _ in range(3):
        with refused(db, "JQ010", "too many requests"):
            key.calls(db)
    assert value(db, used) == before


def test_after_a_long_rest_there_are_no_more_requests_than_the_limit(db: Connection) -> None:
    key = Key(db, rate_limit=2, rate_period="1 hour")
    key.calls(db)
    rest(db, key, 1_000_000)
    assert [key.calls(db).rate_remaining, key.calls(db).rate_remaining] == [1, 0]
    with refused(db, "JQ010", "too many requests"):
        key.calls(db)


def test_a_server_clock_that_was_put_back_shuts_nobody_out(db: Connection) -> None:
    key = Key(db, rate_limit=2, rate_period="1 hour")
    key.calls(db)
    rest(db, key, -1_000_000)
    assert key.calls(db).rate_remaining == 1


def test_a_request_counts_also_if_it_is_rolled_back_or_not_allowed(db: Connection) -> None:
    key = Key(db, ["client"], rate_limit=3, rate_period="1 hour")
    with db.transaction(force_rollback=True):
        key.calls(db)
    with pytest.raises(psycopg.DatabaseError, match="does not allow pause_queue"):
        key.calls(db, "pause_queue")
    assert key.calls(db).rate_remaining == 0


def test_requests_of_one_key_do_not_count_for_another(db: Connection) -> None:
    key, other = (Key(db, rate_limit=1, rate_period="1 hour") for _ in range(2))
    key.calls(db)
    assert other.calls(db).rate_remaining == 0


def test_a_request_waits_for_no_other_and_counts_it(connect: Callable[[], Connection]) -> None:
    db, other = connect(), connect()
    key = Key(db, rate_limit=3, rate_period="1 hour")
    db.execute("begin")
    assert key.calls(db).rate_remaining == 2
    other.execute("set lock_timeout = '1 ms'")
    assert key.calls(other).rate_remaining == 1
    db.execute("rollback")
    assert key.calls(db).rate_remaining == 0


def test_each_key_with_a_limit_has_a_clock_that_goes_with_it(db: Connection) -> None:
    Key(db)
    assert clocks(db) == []
    key = Key(db, rate_limit=5)
    clock = f"key_clock_{key.key_id}"
    assert clocks(db) == [clock]
    step = "select seqincrement from pg_sequence where seqrelid = %s::regclass"
    assert value(db, step, clock) == 12_000_000
    db.execute("update api_keys set rate_limit = 10 where rate_limit = 5")
    assert value(db, step, clock) == 6_000_000
    db.execute("update api_keys set rate_limit = null")
    assert clocks(db) == []
    db.execute("update api_keys set rate_limit = 1")
    assert len(clocks(db)) == 2
    db.execute("delete from api_keys")
    assert clocks(db) == []


# In one statement with the function proper


AS_THE_API = """
select answer.id
  from authorize(%(key_id)s, %(hash)s, %(function)s, p_queues => '{a}') as allowed
  left join lateral (select enqueue_job(p_queue => 'a') as id) as answer on true
"""


def test_what_is_not_allowed_is_not_done_in_the_same_statement(db: Connection) -> None:
    key = Key(db, ["client"])
    as_the_api = {"key_id": key.key_id, "hash": key.hash}
    [row] = db.execute(AS_THE_API, {**as_the_api, "function": "enqueue_job"}).fetchall()
    assert value(db, "select queue from jobs where id = %s", row.id) == "a"
    with refused(db, "JQ009", "does not allow pause_queue"):
        db.execute(AS_THE_API, {**as_the_api, "function": "pause_queue"})
