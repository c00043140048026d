"""The reference names everything there is: settings, words, errors, commands, metrics."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import mulle
from mulle.core import errors
from mulle.core.declare import candidates, checks, gates, monitor, retrain, rollout
from mulle.core.records import run as runs
from mulle.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mulle_docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda f: f.name)
def test_every_setting_is_told_with_its_variable(field: dataclasses.Field[object]) -> None:
    row = next((line for line in page("settings.md").splitlines() if line.startswith(f"| `{field.name}` |")), None)
    assert row is not None, f"docs/reference/settings.md has no row for {field.name}"
    assert f"`MULLE_{field.name.upper()}`" in row
    assert field.metadata["doc"], f"core/settings.py says nothing about {field.name}"


def test_no_setting_is_told_that_is_gone() -> None:
    told = [line.split("`")[1] for line in page("settings.md").splitlines() if line.startswith("| `")]
    assert sorted(told) == sorted(f.name for f in dataclasses.fields(Settings))


@pytest.mark.parametrize("word", sorted(mulle._NAMES))
def test_every_declared_word_is_told(word: str) -> None:
    assert f"### `ml.{word}" in page("declarations.md")


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_told_with_its_status_and_exit_code(name: str) -> None:
    kind = getattr(errors, name)
    row = next((line for line in page("errors.md").splitlines() if line.startswith(f"| `{name}` |")), None)
    assert row is not None, f"docs/reference/errors.md has no row for {name}"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == [f"`{kind.slug}`", str(kind.status), str(kind.exit_code), "yes" if kind.retryable else "no"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            checks,
            [
                *("rows", "rows_like_previous", "rows_as_source", "unique", "no_duplicates", "not_null", "one_of"),
                *("foreign_key", "between", "matches", "holds", "increasing", "fresh", "same_distribution", "sql", "passes"),
            ],
        ),
        (
            gates,
            [
                *("at_most", "at_least", "no_worse_than_champion", "each_slice", "generalisation_gap", "calibration", "fairness"),
                *("parity", "p50", "p99", "throughput", "peak_memory", "bundle_size", "bad_input", "satisfies"),
            ],
        ),
        (
            candidates,
            [
                *("dummy", "linear", "ridge", "lasso", "elastic_net", "logistic", "lightgbm", "hist_gradient_boosting"),
                *("random_forest", "extra_trees", "knn", "naive_bayes", "svm", "xgboost", "catboost", "custom", "onnx"),
            ],
        ),
        (monitor, ["psi", "js", "wasserstein", "null_rate"]),
        (rollout, ["canary", "immediate", "shadow", "blue_green"]),
    ],
    ids=["checks", "gates", "candidates", "monitor", "rollout"],
)
def test_every_check_gate_candidate_and_alarm_is_told(module: ModuleType, words: list[str]) -> None:
    public = {w for w in module.__all__ if w[0].islower()}
    assert public == set(words), "a word came or went: name it here and in docs/reference/declarations.md"
    assert all(f"ml.{word}(" in page("declarations.md") for word in words)


@pytest.mark.parametrize("trigger", retrain.TRIGGERS)
def test_every_cause_of_a_run_is_told(trigger: str) -> None:
    assert f"`{trigger}`" in page("declarations.md")


@pytest.mark.parametrize("word", [*runs.STAGES, *runs.STATES])
def test_every_stage_and_state_of_a_run_is_told(word: str) -> None:
    assert f"`{word}`" in (ROOT / "docs" / "guides" / "loop.md").read_text()


def test_every_path_of_the_inference_plane_is_told() -> None:
    source = ast.parse((ROOT / "src" / "mulle" / "surfaces" / "inference" / "app.py").read_text())
    texts = {n.value for n in ast.walk(source) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    paths = {t for t in texts if re.fullmatch(r"/[a-z0-9/]+", t)}
    assert "/v1/labels" in paths
    assert {p for p in paths if f"{p}`" not in page("http.md")} == set()


def test_the_command_line_page_is_what_the_application_says() -> None:
    assert page("cli.md") == generator().command_line(), "run `make docs` and commit docs/reference/cli.md"


def test_every_command_says_what_it_does() -> None:
    silent = [name for name, command in generator().commands() if not (command.help or "").strip()]
    assert not silent


def test_every_dependency_is_told_and_none_that_is_gone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    told = {
        found.split("[")[0]
        for line in page("dependencies.md").splitlines()
        if line.startswith("| `")
        for cell in line.split("|")[1:3]
        for found in re.findall(r"`([^`]+)`", cell)
    }
    assert told - set(project["optional-dependencies"]) - {"/metrics", "mulle data sql", "mulle data explore"} == {
        re.split(r"[\[<>=;]", dependency)[0] for dependency in wanted
    } - set(project["optional-dependencies"])
