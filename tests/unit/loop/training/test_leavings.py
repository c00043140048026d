"""What a run leaves in the tracking server: the executed source and nothing that should stay at home."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mulle.core.records.run import GateResult, Run, Trial
from mulle.loop.training.leavings import looks_secret, write_leavings

T0 = datetime(2013, 3, 1, tzinfo=UTC)
GATE = GateResult(gate="at_most(mae, 12)", metric="mae", value=9.0, bound=12.0, verdict="pass", reason="9 <= 12")
TRIALS = [
    Trial(run="r", number=0, candidate="dummy", params={}, score=9.0, state="done", seconds=0.1),
    Trial(run="r", number=1, candidate="svm", params={"C": 1}, score=None, state="failed", seconds=2.0, reason="memory"),
    Trial(run="r", number=2, candidate="ridge", params={"alpha": 0.5}, score=4.0, state="done", seconds=0.2),
]


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "core.autocrlf=false"]
    return subprocess.run(["git", *own, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    (folder / "project.py").write_text("x = 1\n")
    (folder / "same.py").write_text("z = 1\n")
    (folder / ".gitignore").write_text("mine.py\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", "-A")
    git(folder.parent, "commit", "-qm", "first")
    return folder


def leave(project: Path, tmp_path: Path, git_state: str | None) -> tuple[Path, dict[str, str]]:
    code = tmp_path / "home" / "code" / "c0de"
    code.mkdir(parents=True, exist_ok=True)
    for path in project.glob("*.py"):
        (code / path.name).write_bytes(path.read_bytes())
    run = Run(id="r", created_at=T0, causes=(), model="m", cutoff=T0, code="c0de", git=git_state)
    return tmp_path / "out", write_leavings(tmp_path / "out", run, TRIALS, [GATE], code=code, project=project)


def names(out: Path) -> list[str]:
    return sorted(zipfile.ZipFile(out / "code" / "source.zip").namelist())


def test_the_leaderboard_has_the_best_first_and_the_failed_last(project: Path, tmp_path: Path) -> None:
    out, _ = leave(project, tmp_path, None)
    rows = list(csv.DictReader((out / "leaderboard.csv").open()))
    assert [(r["rank"], r["candidate"], r["params.alpha"]) for r in rows] == [
        ("1", "ridge", "0.5"),
        ("2", "dummy", ""),
        ("", "svm", ""),
    ]
    assert rows[2]["reason"] == "memory"
    assert [t["number"] for t in json.loads((out / "leaderboard.json").read_text())] == [2, 0, 1]
    assert json.loads((out / "gates.json").read_text())[0]["verdict"] == "pass"


def test_the_same_source_zips_to_the_same_hash(project: Path, tmp_path: Path) -> None:
    out, tags = leave(project, tmp_path, None)
    body = (out / "code" / "source.zip").read_bytes()
    assert tags == {"mulle.code.sha256": hashlib.sha256(body).hexdigest()}
    assert leave(project, tmp_path, None)[1] == tags
    assert names(out) == ["project.py", "same.py"]


def test_the_diff_is_of_what_was_run_not_of_what_the_folder_holds_by_now(project: Path, tmp_path: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    (project / "project.py").write_text("x = 2\n")
    (project / "fresh.py").write_text("y = 1")
    leave(project, tmp_path, f"{commit}-dirty")
    (project / "project.py").write_text("x = 3\n")
    run = Run(id="r", created_at=T0, causes=(), model="m", cutoff=T0, code="c0de", git=f"{commit}-dirty")
    write_leavings(tmp_path / "out", run, TRIALS, [], code=tmp_path / "home" / "code" / "c0de", project=project)
    patch = tmp_path / "out" / "code" / "changes.diff"
    told = patch.read_text()
    assert "-x = 1\n+x = 2\n" in told
    assert "x = 3" not in told
    assert "same.py" not in told
    git(project, "checkout", "-q", "--", ".")
    (project / "fresh.py").unlink()
    git(project.parent, "apply", "--directory=project", str(patch))
    assert ((project / "project.py").read_text(), (project / "fresh.py").read_text()) == ("x = 2\n", "y = 1")


def test_a_clean_tree_has_no_diff(project: Path, tmp_path: Path) -> None:
    out, _ = leave(project, tmp_path, git(project, "rev-parse", "HEAD"))
    assert not (out / "code" / "changes.diff").exists()


def test_what_git_ignores_and_what_looks_like_a_secret_stays_at_home(project: Path, tmp_path: Path) -> None:
    (project / "mine.py").write_text("notes = 1\n")
    (project / "keys.py").write_text('API_KEY = "f3b1c9d0e8a7"\n')
    (project / "secrets.py").write_text("")
    commit = git(project, "rev-parse", "HEAD")
    out, tags = leave(project, tmp_path, f"{commit}-dirty")
    assert names(out) == ["project.py", "same.py"]
    assert tags["mulle.code.left_out"] == "keys.py, mine.py, secrets.py"
    left = json.loads((out / "code" / "files.json").read_text())["left_out"]
    assert left["mine.py"] == "git ignores it"
    assert not any(b"f3b1c9d0e8a7" in path.read_bytes() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        "key = 'AKIAABCDEFGHIJKLMNOP'",
        "ml.Table('postgresql://ada:hunter2@db/x')",
        "headers = {'access_token': 'abcdefgh1234'}",
    ],
)
def test_a_secret_is_known_by_its_form(text: str) -> None:
    assert looks_secret("project.py", text)


@pytest.mark.parametrize(
    "text",
    [
        "ml.Table('postgresql://${USER}:${PASSWORD}@db/x')",
        "tokenizer = 'whitespace_and_more'",
        "key='flight_id', token=os.environ['SOME_TOKEN']",
        "headers = {'token': '${ACCESS_TOKEN}'}",
        "url = 'https://example.org/a:b@c'",
    ],
)
def test_a_name_from_the_environment_is_no_secret(text: str) -> None:
    assert looks_secret("project.py", text) is None


def test_a_snapshot_that_is_gone_leaves_the_rest(project: Path, tmp_path: Path) -> None:
    run = Run(id="r", created_at=T0, causes=(), model="m", cutoff=T0, code="gone")
    assert write_leavings(tmp_path / "out", run, TRIALS, [GATE], code=tmp_path / "gone", project=project) == {}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gates.json", "leaderboard.csv", "leaderboard.json"]
