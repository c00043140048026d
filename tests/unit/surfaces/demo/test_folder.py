"""The demo's folder: what is written, what is replaced, and what is left alone."""

from __future__ import annotations

import pytest

from mulle.core.errors import Conflict, MulleError, UsageError
from mulle.kernel.project import load_project
from mulle.loop.lock import hold
from mulle.surfaces.demo.folder import finish_data, open_folder, start_data


def test_a_new_folder_gets_a_project_that_loads(tmp_path):
    folder = tmp_path / "demo"
    open_folder(folder, force=False)
    assert sorted(p.name for p in folder.iterdir()) == [".gitignore", "README.md", "mulle.toml", "prepare.py", "project.py"]
    assert list(load_project(folder).models) == ["air-time"]


def test_a_folder_with_something_else_is_refused_even_by_force(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not a demo"):
        open_folder(tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_finished_demo_is_replaced_only_by_force_and_an_edited_project_stays(tmp_path):
    open_folder(tmp_path, force=False)
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / ".mulle" / "lake").mkdir(parents=True)
    (tmp_path / "project.py").write_text("# mine\n")
    with pytest.raises(UsageError, match="finished demo"):
        open_folder(tmp_path, force=False)
    assert (tmp_path / ".mulle" / "lake").exists()
    open_folder(tmp_path, force=True)
    assert not (tmp_path / ".mulle").exists()
    assert not (tmp_path / "demo.json").exists()
    assert (tmp_path / "project.py").read_text() == "# mine\n"


def test_an_interrupted_demo_is_played_again_without_force(tmp_path):
    open_folder(tmp_path, force=False)
    (tmp_path / ".mulle").mkdir()
    open_folder(tmp_path, force=False)
    assert not (tmp_path / ".mulle").exists()


def test_a_demo_that_is_being_played_is_left_alone(tmp_path):
    open_folder(tmp_path, force=False)
    lock = hold(tmp_path / ".mulle" / "engine.lock")
    try:
        with pytest.raises(Conflict, match="being played"):
            open_folder(tmp_path, force=True)
    finally:
        lock.release()
    assert (tmp_path / ".mulle").exists()


def test_data_that_cannot_be_made_is_told_with_its_reason(tmp_path):
    (tmp_path / "prepare.py").write_text("import sys\nsys.exit('the archive is damaged')\n")
    with pytest.raises(MulleError, match="the archive is damaged"):
        finish_data(start_data(tmp_path))


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        start_data(tmp_path)
    assert "mulle[demo]" in refused.value.next
