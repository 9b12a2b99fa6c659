"""What the images and the examples install is pinned, each file of it by its hash."""

import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

COMPONENTS = ("api", "worker", "database")
NPM_LOCKS = sorted(
    path for path in ROOT.glob("*/**/package-lock.json") if "node_modules" not in path.parts
)


def entries(component: str) -> dict[str, tuple[str, list[str]]]:
    """Return of each distribution that is locked its version and its hashes."""
    text = (ROOT / component / "requirements.lock").read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, version, rest = re.fullmatch(r"([\w.-]+)==([\w.]+)(.*)", line).groups()  # type: ignore[union-attr]
        assert name not in found
        found[name] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\S)", rest)
        assert rest.count("--hash") == len(found[name][1])
    return found


@pytest.mark.parametrize("component", COMPONENTS)
def test_all_that_a_component_needs_is_locked_within_its_range(component: str) -> None:
    locked = entries(component)
    assert all(hashes for _, hashes in locked.values())
    for line in (ROOT / component / "requirements.txt").read_text().split("\n"):
        if line:
            wanted = Requirement(line)
            version, _ = locked[canonicalize_name(wanted.name)]
            assert wanted.specifier.contains(version), line


@pytest.mark.parametrize("component", COMPONENTS)
def test_its_image_installs_the_lock_and_nothing_else(component: str) -> None:
    dockerfile = (ROOT / component / "Dockerfile").read_text()
    assert re.findall(r".*\bpip\b.*", dockerfile) == [
        "RUN pip install --no-cache-dir --require-hashes -r requirements.lock"
    ]


@pytest.mark.parametrize("path", NPM_LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_package_of_npm_has_its_hash(path: Path) -> None:
    packages = json.loads(path.read_text())["packages"]
    del packages[""]  # the directory itself
    assert packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_there_are_locks_of_npm() -> None:
    assert len(NPM_LOCKS) >= 2
