"""The house rules for SQL, asked of the catalog."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import Connection

SCHEMA = Path(__file__).resolve().parent.parent / "database" / "schema"


@pytest.fixture
def functions(db: Connection) -> list[Any]:
    """All functions of the schema."""
    return db.execute(
        """
        select
          proname as name,
          prosecdef as is_definer,
          coalesce(proconfig, '{}') as settings,
          coalesce(proargnames, '{}') as argument_names,
          proargmodes as argument_modes,
          prosrc as body,
          obj_description(oid, 'pg_proc') as comment,
          has_function_privilege('public', oid, 'execute') as public_may_execute,
          prorettype::regtype::text as return_type,
          (select relkind from pg_class where reltype = prorettype) as row_type_of
          from pg_proc
         where pronamespace = 'job_queue'::regnamespace
         order by proname
        """
    ).fetchall()


def test_each_function_has_a_file_named_after_it_and_each_name_one_function(
    functions: list[Any],
) -> None:
    files = [
        path.stem.split("_", 1)[1]
        for path in SCHEMA.glob("*.sql")
        if "create function" in path.read_text()
    ]
    assert [function.name for function in functions] == sorted(files)


def test_the_public_may_execute_no_function_and_use_no_table_and_no_schema(
    db: Connection, functions: list[Any]
) -> None:
    assert [function.name for function in functions if function.public_may_execute] == []
    granted_to_public = db.execute(
        """
        select object.name, acl.privilege_type
          from (
            select relname, relacl from pg_class where relnamespace = 'job_queue'::regnamespace
            union all
            select nspname, nspacl from pg_namespace where nspname = 'job_queue'
          ) as object (name, acl)
         cross join aclexplode(object.acl) as acl
         where acl.grantee = 0
        """
    ).fetchall()
    assert granted_to_public == []


# Their comments say why: Postgres may inline them or they are to cost little; the last must be the
# caller's.
INLINED = [
    "effort",
    "first_of_lane",
    "has_sleepers",
    "is_consistent",
    "is_in_order",
    "may_become",
    "new_job_id",
    "sleepers_lock",
    "status_after",
]
AS_THE_CALLER = ["grant_roles"]


def test_each_function_runs_as_its_owner_with_a_pinned_search_path(functions: list[Any]) -> None:
    for function in functions:
        if function.name in INLINED:
            assert not function.is_definer
            assert function.settings == []
            continue
        if function.name in AS_THE_CALLER:
            assert not function.is_definer
            assert "search_path=pg_catalog, pg_temp" in function.settings
            continue
        assert function.is_definer, function.name
        assert "search_path=pg_catalog, pg_temp" in function.settings, function.name


def test_each_parameter_starts_with_p_and_each_local_with_v(functions: list[Any]) -> None:
    for function in functions:
        modes = function.argument_modes or ["i"] * len(function.argument_names)
        for name, mode in zip(function.argument_names, modes, strict=True):
            assert name.startswith("p_") == (mode == "i"), (function.name, name)
        declared = re.search(r"declare\n(.*?)\nbegin", function.body, re.S)
        for line in declared[1].splitlines() if declared else []:
            assert line.startswith(("  v_", "   ", "  end")) or line == "", (function.name, line)


def test_no_function_returns_the_row_type_of_a_table(functions: list[Any]) -> None:
    assert [function.name for function in functions if function.row_type_of] == []


def test_no_function_uses_the_transactions_start(functions: list[Any]) -> None:
    for function in functions:
        assert not re.search(r"\bnow\(\)|current_timestamp", function.body, re.I), function.name


def test_only_what_defines_things_or_names_a_channel_uses_dynamic_sql(functions: list[Any]) -> None:
    # Between quotes it is the name of a privilege.
    using = [f.name for f in functions if re.search(r"(?<!')\bexecute\b", f.body, re.I)]
    # LISTEN takes the channel's name as it stands, and there is no function in its place.
    assert using == [
        "grant_roles",
        "start_key_clock",
        "start_listening",
        "start_mark",
        "start_rate_clock",
    ]


def test_only_what_people_call_seldom_uses_a_subtransaction(functions: list[Any]) -> None:
    using = [f.name for f in functions if re.search(r"\bexception\s+when\b", f.body, re.I)]
    assert using == ["fire_schedules", "retry_job", "retry_jobs", "set_queue", "set_schedule"]


def test_no_function_is_longer_than_60_lines(functions: list[Any]) -> None:
    assert [function.name for function in functions if function.body.count("\n") > 60] == []


def test_each_error_is_of_class_JQ_is_documented_and_carries_a_hint(functions: list[Any]) -> None:
    documented = set(
        re.findall(r"^\| `(JQ\d{3})`", (SCHEMA.parent / "README.md").read_text(), re.M)
    )
    raised = set()
    for function in functions:
        codes = re.findall(r"errcode = '(.{5})'", function.body)
        assert function.body.count("raise exception") == len(codes), function.name
        assert function.body.count("hint = ") == len(codes), function.name
        raised |= set(codes)
    assert raised == documented


def test_everything_has_a_comment(db: Connection, functions: list[Any]) -> None:
    assert [function.name for function in functions if not function.comment] == []
    without = db.execute(
        """
        select relation.relname, attribute.attname
          from pg_class as relation
          left join pg_attribute as attribute
            on attribute.attrelid = relation.oid
           and attribute.attnum > 0
           and not attribute.attisdropped
         where relation.relnamespace = 'job_queue'::regnamespace
           and relation.relkind in ('r', 'v', 'm')
           and (obj_description(relation.oid, 'pg_class') is null
                or col_description(relation.oid, attribute.attnum) is null)
        """
    ).fetchall()
    assert without == []
    assert db.execute("select obj_description('job_queue'::regnamespace)").fetchone() != (None,)


def test_constraints_and_indexes_are_named_after_their_table(db: Connection) -> None:
    rows = db.execute(
        """
        select relation.relname as of_table, constraint_.conname as name
          from pg_constraint as constraint_
          join pg_class as relation on relation.oid = constraint_.conrelid
         where relation.relnamespace = 'job_queue'::regnamespace
        union
        select relation.relname, index_relation.relname
          from pg_index as index_
          join pg_class as index_relation on index_relation.oid = index_.indexrelid
          join pg_class as relation on relation.oid = index_.indrelid
         where relation.relnamespace = 'job_queue'::regnamespace
        """
    ).fetchall()
    assert rows
    for row in rows:
        assert row.name.startswith(f"{row.of_table}_"), row


def test_sql_files_keep_to_100_columns_and_say_their_transition_first() -> None:
    for path in SCHEMA.glob("*.sql"):
        text = path.read_text()
        assert max(map(len, text.splitlines())) <= 100, path.name
        assert text.startswith("-- "), path.name
        if "create function" in text:
            assert re.match(r"-- ((\w+( or \w+)* )?-> \w+( or \w+)*|.*[Cc]hanges no.*)\n", text), (
                path.name
            )
