"""An upgrade holds nobody up for long."""

import re
from pathlib import Path

import pytest

MIGRATIONS = Path(__file__).resolve().parent.parent / "database" / "migrations"
FIRST_UPGRADE = 32  # what comes before made the tables
LOCKING = re.compile(r"^(alter table (?!.* validate )|create (unique )?index .*jobs)", re.M)
ALTERING = [
    path
    for path in sorted(MIGRATIONS.glob("*.sql"))
    if int(path.name[:4]) >= FIRST_UPGRADE and LOCKING.search(path.read_text())
]


@pytest.mark.parametrize("path", ALTERING, ids=lambda path: path.stem)
def test_a_migration_that_locks_a_table_gives_up_rather_than_hold_everybody_up(path: Path) -> None:
    assert re.search(r"^set (local )?lock_timeout = ", path.read_text(), re.M)
