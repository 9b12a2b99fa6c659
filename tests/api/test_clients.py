"""Clients generated from the OpenAPI document: they type-check, and do what they are told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.main import create_app
from api.settings import Settings
from tests.api.conftest import ROOT, Serve
from tests.support import Connection, skip_unless_required, value

TYPESCRIPT = ROOT / "tests" / "api" / "typescript"

PROGRAM = """
import os

from client import AuthenticatedClient
from client.api.jobs import create_job, get_job, list_jobs
from client.api.worker import claim_jobs, complete_job, report_progress
from client.models import (
    ClaimRequest,
    Completion,
    CreatedJob,
    GetJobView,
    Job,
    ListJobsStatusItem,
    NewJob,
    ProblemDetails,
    ProgressReport,
)

api = AuthenticatedClient(os.environ["API_URL"], token=os.environ["API_KEY"], timeout=None)
new_job = NewJob(job_type="add", payload={"a": 1, "b": 2}, queue="sums", max_attempts=2)
created = create_job.sync(client=api, body=new_job, idempotency_key="one")
again = create_job.sync(client=api, body=new_job, idempotency_key="one")
assert isinstance(created, CreatedJob) and created.status == "queued"
assert again == created

claims = claim_jobs.sync(
    client=api,
    body=ClaimRequest(worker="python", job_types=["add"], lease_seconds=30),
    prefer="wait=10",
)
assert isinstance(claims, list)
[job] = claims
report = ProgressReport(claim_id=job.claim_id, progress="half")
report_progress.sync_detailed(job.id, client=api, body=report)
running = get_job.sync(job.id, client=api, view=GetJobView.FULL)
assert isinstance(running, Job) and running.progress == "half"
completion = Completion(
    claim_id=job.claim_id, result={"sum": job.payload["a"] + job.payload["b"]}
)
assert complete_job.sync_detailed(job.id, client=api, body=completion).status_code == 204

late = complete_job.sync(job.id, client=api, body=completion)
assert isinstance(late, ProblemDetails)
assert late.type_ == "urn:async-job-orchestrator:problem:not-running"

done = get_job.sync(job.id, client=api, prefer="wait=10")
assert isinstance(done, Job) and done.result == {"sum": 3}
listed = list_jobs.sync(client=api, status=[ListJobsStatusItem.SUCCEEDED], limit=5)
assert isinstance(listed, list)
assert [each.id for each in listed] == [job.id]
print("done")
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The OpenAPI document in a file."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(create_app(Settings("")).openapi()))
    return path


@pytest.fixture
def access(serve: Serve, db: Connection) -> dict[str, str]:
    """Where the API is, and a key for it, without which it answers nothing."""
    key = value(db, "select api_key from create_api_key('program', '{client,worker}')")
    return {"API_URL": serve(API_REQUIRE_KEY="on").url, "API_KEY": key}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_client_in_python_is_generated_type_checks_and_works(
    access: dict[str, str], document: Path, tmp_path: Path
) -> None:
    generator = [str(Path(sys.executable).parent / "openapi-python-client"), "generate"]
    options = ["--meta", "none", "--fail-on-warning", "--output-path", "client"]
    run(*generator, "--path", document, *options, cwd=tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    assert "no issues found" in run(*mypy, "program.py", cwd=tmp_path)
    assert run(sys.executable, "program.py", cwd=tmp_path, **access) == "done\n"


def test_a_client_in_typescript_is_generated_type_checks_and_works(
    access: dict[str, str], document: Path, tmp_path: Path
) -> None:
    if not shutil.which("node"):
        skip_unless_required("examples", "node cannot be found here")
    if not (TYPESCRIPT / "node_modules").exists():
        skip_unless_required("examples", "`npm ci --prefix tests/api/typescript` has not been run")
    for name in ("package.json", "client.ts"):
        shutil.copy(TYPESCRIPT / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    binaries = TYPESCRIPT / "node_modules" / ".bin"
    optional = "--default-non-nullable=false"  # what has a default need not be sent
    run(binaries / "openapi-typescript", document, "-o", "schema.d.ts", optional, cwd=tmp_path)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    run(binaries / "tsc", *options, "--types", "node", "client.ts", cwd=tmp_path)
    assert run("node", "client.js", cwd=tmp_path, **access) == "done\n"
