"""``mulle new`` writes a project that loads, and whose own tests pass."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mulle.core.errors import UsageError
from mulle.kernel.project import load_project
from mulle.surfaces.cli.new import write_project


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "cells-lab"
    return folder, write_project(folder)


def test_the_project_loads_and_its_data_is_there(made):
    folder, written = made
    assert {"project.py", "README.md", "mulle.toml", ".gitignore", "tests/test_features.py", "data/cells.csv"} <= set(written)
    project = load_project(folder)
    assert list(project.models) == ["diagnosis"]
    rows = (folder / "data" / "cells.csv").read_text().splitlines()
    assert len(rows) == 570
    assert set(project.datasets["cells"].key) <= set(rows[0].split(","))
    assert "{{" not in (folder / "README.md").read_text()


def test_the_projects_own_tests_pass_with_plain_pytest(made):
    folder, _ = made
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_folder_that_holds_something_is_not_touched(made):
    folder, _ = made
    with pytest.raises(UsageError, match="not empty"):
        write_project(folder)


def test_a_name_that_cannot_be_a_projects_is_refused(tmp_path):
    with pytest.raises(UsageError, match="refused"):
        write_project(tmp_path / "a b")
