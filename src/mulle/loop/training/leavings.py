"""The files that a run leaves beside its figures in the tracking server: executed source, its diff, leaderboard and gates."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import re
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mulle.core.records.base import Json, to_json
from mulle.core.records.run import GateResult, Run, Trial
from mulle.kernel.project import code_files
from mulle.loop.views.figures import inspection_figures, search_figures

__all__ = ["leaderboard", "looks_secret", "pages", "write_leavings"]

_PATIENCE = 10
"""Seconds that git may take."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time that every zipped file carries, so that the same source gives the same bytes."""

_NAMES = re.compile(
    r"(^|[/._-])(secrets?|credentials?|passwords?|id_(rsa|dsa|ecdsa|ed25519))(\.|$)|\.(env|pem|key|p12|pfx)\b", re.I
)
_CONTENT = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{30,}|\bxox[abprs]-[\w-]{10,}|\bsk-[\w-]{20,}"),
    "a password in an address": re.compile(r"\w://[^\s/:@\"']+:(?!\$\{)[^\s/@\"'{}]+@"),
    "a word for a secret with a value": re.compile(
        r"\b\w*(password|passwd|secret|api_?key|token)s?[\"']?\s*[:=]\s*[\"'](?!\$\{)[^\"'\s]{8,}[\"']", re.I
    ),
}


def write_leavings(
    folder: Path, run: Run, trials: Sequence[Trial], gates: Sequence[GateResult], *, code: Path, project: Path
) -> dict[str, str]:
    """Write a run's files.

    What git ignores and what looks like a secret is left out; ``code/files.json`` names it, with the reason.

    Parameters
    ----------
    folder : Path
        Where to; made when it is not there.
    run : Run
    trials : sequence of Trial
    gates : sequence of GateResult
    code : Path
        The snapshot that the run executed; when it is gone, no code is written.
    project : Path
        The project's folder, which git knows.

    Returns
    -------
    dict
        Tags: ``mulle.code.sha256`` of the zipped source and, where something was left out, ``mulle.code.left_out``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best = leaderboard(trials)
    (folder / "leaderboard.json").write_text(json.dumps(best, indent=1))
    (folder / "leaderboard.csv").write_text(_csv(best))
    (folder / "gates.json").write_text(json.dumps(to_json(gates), indent=1))
    return _write_code(folder / "code", run, code, project) if code.is_dir() else {}


def leaderboard(trials: Sequence[Trial]) -> list[Json]:
    """List trials by rank, the best (lowest) score first; those without a score come last, by number.

    Examples
    --------
    >>> a = Trial(run="r", number=0, candidate="dummy", params={}, score=3.0, state="done", seconds=0.1)
    >>> b = Trial(run="r", number=1, candidate="ridge", params={}, score=2.0, state="done", seconds=0.1)
    >>> [(t["rank"], t["candidate"]) for t in leaderboard([a, b])]
    [(1, 'ridge'), (2, 'dummy')]
    """
    ordered = sorted(trials, key=lambda t: (t.score is None, t.score or 0.0, t.number))
    return [
        {"rank": rank if t.score is not None else None, **{k: v for k, v in to_json(t).items() if k != "run"}}
        for rank, t in enumerate(ordered, start=1)
    ]


def pages(trials: Sequence[Trial], results: Json) -> dict[str, dict[str, Json]]:
    """Draw what a run found, in Plotly's form: the page ``search`` and, of the winner, the page ``model``.

    Parameters
    ----------
    trials : sequence of Trial
    results : dict
        Of the steps ``search`` and ``evaluate``.
    """
    of_search = search_figures(to_json(trials), results["search"].get("importance", {})) if trials else {}
    of_model = inspection_figures(results["evaluate"].get("inspection"))
    return {name: figures for name, figures in (("search", of_search), ("model", of_model)) if figures}


def looks_secret(name: str, text: str) -> str | None:
    """Say what a source file looks like that should not be passed on, or None.

    Examples
    --------
    >>> looks_secret("app/.env", "")
    'its name'
    >>> looks_secret("project.py", "TOKEN = 'abcd1234efgh'")
    'a word for a secret with a value'
    >>> looks_secret("project.py", "url = 'postgresql://${USER}:${PASSWORD}@db/x'")
    """
    if _NAMES.search(name):
        return "its name"
    return next((kind for kind, pattern in _CONTENT.items() if pattern.search(text)), None)


def _write_code(folder: Path, run: Run, code: Path, project: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    sources = {path.relative_to(code).as_posix(): path.read_bytes() for path in code_files(code)}
    left = dict.fromkeys(_ignored(project, list(sources)), "git ignores it")
    for name, body in sources.items():
        if (why := looks_secret(name, body.decode(errors="replace"))) is not None:
            left[name] = f"looks like a secret: {why}"
    kept = {name: body for name, body in sources.items() if name not in left}
    zipped = _zip(kept)
    (folder / "source.zip").write_bytes(zipped)
    digest = hashlib.sha256(zipped).hexdigest()
    told = {
        "hash": run.code, "sha256": digest, "git": run.git, "left_out": left,
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in kept.items()},
    }  # fmt: skip
    (folder / "files.json").write_text(json.dumps(told, indent=1))
    if changes := _changes(run.git, project, kept):
        (folder / "changes.diff").write_text(changes)
    tags = {"mulle.code.sha256": digest}
    return tags | ({"mulle.code.left_out": ", ".join(sorted(left))} if left else {})


def _zip(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), body, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _changes(git: str | None, project: Path, files: Mapping[str, bytes]) -> str:
    """Give the executed source's difference to the commit it stands on: what was run, not what the folder holds by now."""
    if git is None or not git.endswith("-dirty"):
        return ""
    commit = git.removesuffix("-dirty")
    known = _blobs(project, commit)
    parts: list[str] = []
    for name, body in sorted(files.items()):
        if known.get(name) == hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest():
            continue
        before = _git(project, "cat-file", "blob", f"{commit}:./{name}") if name in known else None
        old = (before or b"").decode(errors="replace").splitlines(keepends=True)
        new = body.decode(errors="replace").splitlines(keepends=True)
        source = "/dev/null" if before is None else f"a/{name}"
        lines = difflib.unified_diff(old, new, source, f"b/{name}")
        parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join(parts)


def _blobs(project: Path, commit: str) -> dict[str, str]:
    lines = (_git(project, "ls-tree", "-r", "-z", commit) or b"").decode(errors="replace").split("\0")
    return {line.partition("\t")[2]: line.partition("\t")[0].split()[2] for line in lines if line}


def _ignored(project: Path, names: Sequence[str]) -> list[str]:
    answer = _git(project, "check-ignore", "-z", "--stdin", told="\0".join(names).encode())
    return [name for name in (answer or b"").decode().split("\0") if name]


def _git(project: Path, *arguments: str, told: bytes = b"") -> bytes | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(project), *arguments], input=told, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _csv(rows: Sequence[Json]) -> str:
    params = sorted({name for row in rows for name in row["params"]})
    plain = [k for k in (rows[0] if rows else {}) if k != "params"]
    told = io.StringIO()
    writer = csv.writer(told)
    writer.writerow([*plain, *(f"params.{name}" for name in params)])
    for row in rows:
        writer.writerow([_cell(row[k]) for k in plain] + [_cell(row["params"].get(name)) for name in params])
    return told.getvalue()


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
