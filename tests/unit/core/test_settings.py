"""Where a setting comes from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulle.core.errors import UsageError
from mulle.core.settings import load_settings


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    (tmp_path / "mulle.toml").write_text("[mulle]\nport = 1\ninference_port = 2\nmax_rows = 3\n")
    found = load_settings(
        {"project": tmp_path, "port": 10, "host": None}, {"MULLE_PORT": "20", "MULLE_INFERENCE_PORT": "30", "MULLE_FSYNC": "true"}
    )
    assert (found.port, found.inference_port, found.max_rows, found.host, found.fsync) == (10, 30, 3, "127.0.0.1", True)


def test_stores_lie_in_the_home_beside_the_project_unless_said_otherwise(tmp_path: Path) -> None:
    found = load_settings({"project": tmp_path}, {})
    assert found.home == tmp_path / ".mulle"
    assert found.database == f"sqlite:///{tmp_path}/.mulle/mulle.db"
    assert load_settings({"project": tmp_path, "lake": "s3://bucket/lake"}, {}).lake == "s3://bucket/lake"


@pytest.mark.parametrize(("text", "said"), [
    ("[mulle]\nprot = 1\n", "unknown setting 'prot'"), ("[mulle\n", "not valid TOML"),
    ("port = 1\n", "port stands outside [mulle]"), ("mulle = 1\n", "[mulle] is no table"),
])  # fmt: skip
def test_a_broken_file_is_named_with_its_mistake(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mulle.toml").write_text(text)
    with pytest.raises(UsageError, match=r"mulle\.toml") as error:
        load_settings({"project": tmp_path}, {})
    assert said in error.value.detail


def test_a_value_of_the_wrong_type_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="port"):
        load_settings({"project": tmp_path}, {"MULLE_PORT": "many"})


def test_a_span_that_is_none_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="setting deadline: 'soon' is not a duration"):
        load_settings({"project": tmp_path}, {"MULLE_DEADLINE": "soon"})
    assert load_settings({"project": tmp_path}, {"MULLE_ALERTS_DIGEST": ""}).alerts_digest == ""
