"""plpgsql_check finds nothing: the linter that looks inside $$."""

from tests.support import Connection, skip_unless_required

# Volatile on purpose, as their comments say: a stable function does not see what was committed
# while its caller waited, or in the same statement, and one cannot lock. And grant_roles puts
# regprocedures into its statement, which need no quotes.
INTENDED = {
    "get_job": ["VOLATILE", "recheck"],
    "status_of": ["VOLATILE", "recheck"],
    "taken_slots": ["VOLATILE", "recheck"],
    "lock_unended_jobs": ["VOLATILE", "recheck"],
    "list_events": ["VOLATILE", "recheck"],
    "settled_events": ["VOLATILE", "recheck"],
    "grant_roles": [
        "not sanitized",
        "grant execute on function %s",
        "--  ",
        "EXECUTE expression",
        "quote_ident",
    ],
}


def test_plpgsql_check_finds_nothing(db: Connection) -> None:
    available = "select from pg_available_extensions where name = 'plpgsql_check'"
    if not db.execute(available).fetchall():
        skip_unless_required("plpgsql_check", "this server does not have plpgsql_check")
    db.execute("create extension plpgsql_check with schema public")
    checked = db.execute(
        """
        select function.proname, finding
          from pg_proc as function
          join pg_language as language on language.oid = function.prolang
          left join pg_trigger as trigger on trigger.tgfoid = function.oid
          left join lateral plpgsql_check_function(
            function.oid,
            coalesce(trigger.tgrelid, 0),
            all_warnings => true,
            fatal_errors => false
          ) as finding on true
         where function.pronamespace = 'job_queue'::regnamespace
           and language.lanname = 'plpgsql'
        """
    ).fetchall()
    assert checked
    assert [
        row
        for row in checked
        if row.finding is not None
        and not any(words in row.finding for words in INTENDED.get(row.proname, []))
    ] == []
