"""Loading ``project.py``: the file is executed once, its declarations collected, its source hashed."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

from mulle.core.declare.features import Features
from mulle.core.declare.project import Project, collect
from mulle.core.errors import BundleError, ProjectError, UsageError

__all__ = ["code_files", "git_commit", "hash_code", "load_features", "load_project", "release_of"]

_SKIPPED = {".venv", "venv", ".git", ".mulle", "tests", "node_modules", "__pycache__", "build", "dist"}

_LOCKS = ("requirements*.txt", "requirements*.lock", "uv.lock", "poetry.lock", "Pipfile.lock", "pylock*.toml")


def load_project(folder: Path) -> Project:
    """Execute a project's ``project.py`` and collect what it declares.

    Parameters
    ----------
    folder : Path
        The folder that holds ``project.py``; modules beside it can be imported by it.

    Returns
    -------
    Project

    Raises
    ------
    ProjectError
        When there is no such file or it fails; facts name ``file``, ``line`` and ``cause``.
    """
    path = folder / "project.py"
    if not path.is_file():
        raise ProjectError(
            f"no project.py in {folder}", next="make one with `mulle new NAME`, or name the folder with --project", file=str(path)
        )
    code = hash_code(folder)
    module = _execute(path, f"mulle_project_{code}")
    return collect(vars(module), folder, code)


def load_features(folder: Path, function: str) -> Features:
    """Load one feature function from a bundle's ``transform`` folder.

    Parameters
    ----------
    folder : Path
        Holds the snapshot's ``project.py``.
    function : str
        Its name.

    Raises
    ------
    BundleError
        When the snapshot does not load or has no such function.
    """
    try:
        project = load_project(folder)
    except UsageError as error:
        raise BundleError(
            f"the bundle's project does not load: {error.detail}", next="register the model again", **error.facts
        ) from error
    if function not in project.features:
        raise BundleError(f"the bundle's project has no feature function '{function}'", next="register the model again")
    return project.features[function]


def code_files(folder: Path) -> tuple[Path, ...]:
    """List the project's own Python files: those below its folder but for environments, tests and caches."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        # An editor's lock is a link to nowhere, and a pipe would be read for ever.
        if not any(p in _SKIPPED or p.startswith(".") for p in parts[:-1]) and path.is_file():
            found.append(path)
    return tuple(found)


def hash_code(folder: Path) -> str:
    """Hash the project's own Python files with their names; 16 hex digits."""
    digest = hashlib.sha256()
    for path in code_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def release_of(folder: Path) -> str:
    """Name what the project's code runs on: Mulle's version, and a hash of the lock files beside it, where there are any.

    Examples
    --------
    >>> release_of(Path("nowhere")).startswith("mulle ")
    True
    """
    from mulle import __version__

    locks = sorted(p for pattern in _LOCKS for p in folder.glob(pattern))
    digest = hashlib.sha256(b"\0".join(p.name.encode() + b"\0" + p.read_bytes() for p in locks)).hexdigest()[:8]
    return f"mulle {__version__}" + (f", locks {digest}" if locks else "")


def git_commit(folder: Path) -> str | None:
    """Return the commit checked out at `folder`, ``-dirty`` appended when files differ; None outside git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _execute(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{path} cannot be loaded", file=str(path))
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a project that exits must not end who loads it
        sys.modules.pop(name, None)
        raise _located(error, path) from error
    finally:
        sys.path.remove(str(path.parent))
        _forget_siblings(before, path.parent)
    return module


def _forget_siblings(before: set[str], folder: Path) -> None:
    # Two versions of a project in one process must not share the modules beside project.py.
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent.is_relative_to(folder) and not name.startswith("mulle_project_"):
            del sys.modules[name]


def _located(error: BaseException, path: Path) -> ProjectError:
    if isinstance(error, SyntaxError):
        file, line = error.filename or str(path), error.lineno or 0
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(path.parent)]
        file, line = (frames[-1].filename, frames[-1].lineno or 0) if frames else (str(path), 0)
    cause = f"{type(error).__name__}: {error}"
    hint = getattr(error, "next", "") or "mend the line and try again; --debug shows the traceback"
    return ProjectError(f"{file}, line {line}: {cause}", next=hint, file=file, line=line, cause=cause)
