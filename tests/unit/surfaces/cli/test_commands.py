"""The command line as its user meets it: answers on stdout, words on stderr, exit codes that say who was wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from mulle.surfaces.cli.main import call
from mulle.surfaces.cli.traffic import read_rows, typed


@pytest.fixture
def cli(home, capsys, monkeypatch):
    monkeypatch.chdir(home.folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = call(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def server(monkeypatch):
    """A stand-in for the other side of the wire: what it is sent is kept, what it answers is set by the test."""
    seen: list[tuple[str, object]] = []
    answers: dict[str, tuple[int, object]] = {}

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = answers.get(self.path, (404, {"detail": "no such path"}))
            token = os.environ.get("MULLE_TOKEN")
            if token and self.headers["Authorization"] != f"Bearer {token}":
                status, body = 401, {"detail": "the request carries no valid token"}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            seen.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("MULLE_INFERENCE_PORT", str(listening.server_port))
        yield seen, answers
        listening.shutdown()


def test_help_says_of_each_command_a_whole_sentence(capsys):
    assert call(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "what is deployed; checks run on a sample; exit 1 when one fails." in " ".join(shown.split())
    assert not [line for line in shown.splitlines()[1:] if line.endswith("...")]


def test_a_group_without_a_command_shows_what_it_has(capsys):
    assert call(["models"]) == 0
    shown = capsys.readouterr()
    assert "reproduce" in shown.out
    assert shown.err == ""


def test_help_is_light_and_names_every_command():
    code = """
import sys
from mulle.surfaces.cli.main import call
call(["--help"])
heavy = {"polars", "numpy", "mlflow", "sklearn", "sqlalchemy", "fastapi", "deltalake", "dbos", "rich.table"} & set(sys.modules)
print("HEAVY", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY set()" in done.stdout
    for name in (
        "new",
        "plan",
        "demo",
        "up",
        "run",
        "replay",
        "explain",
        "predict",
        "label",
        "status",
        "runs",
        "models",
        "deploy",
        "rollback",
        "history",
        "data",
        "doctor",
        "promote",
        "alerts",
        "monitor",
        "serve",
    ):
        assert f"\n  {name} " in done.stdout


def test_status_says_how_each_model_stands(cli):
    code, out, _ = cli("status")
    assert code == 0
    assert "air-time needs a look: 1 open alert" in out
    assert "idle has no version yet" in out
    assert "5 rows of flights were turned away" in out
    assert "engine does not run" in out


def test_status_says_when_no_server_answers(cli, server, monkeypatch):
    _, answers = server
    answers["/v2/health/live"] = (200, {"live": True})
    code, out, _ = cli("status")
    assert (code, "no inference server" in out) == (0, False)
    answers["/v2/health/live"] = (404, {"detail": "no such page"})
    assert "no inference server answers" in cli("status")[1], "what answers there is none of ours"
    monkeypatch.setenv("MULLE_INFERENCE_PORT", "1")
    code, out, _ = cli("status")
    assert (code, "no inference server answers at http://127.0.0.1:1: start it with `mulle up`" in out) == (0, True)
    told = json.loads(cli("status", "--json")[1])["server"]
    assert told == {"state": "silent", "url": "http://127.0.0.1:1"}


def test_status_says_what_the_server_refuses_to_load(cli, server):
    _, answers = server
    told = {"in_force": [], "problem": {"detail": "bundle 12ab is not the bundle that was registered"}}
    answers["/v2/health/live"] = (200, {"live": True})
    answers["/v1/routes"] = (200, {"generation": 1, "models": {"air-time": told, "idle": {"problem": None}}, "problem": None})
    code, out, _ = cli("status")
    words = " ".join(out.split())
    assert code == 0
    assert "air-time needs a look: the server answers with what it had before, for a bundle is refused: bundle 12ab is" in words
    assert "idle has no version yet" in words


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("runs", "ls"), ("run-3", "rejected", "schedule 0 4 * * *: it was time", "mae 13 > 12")),
        (("runs", "show", "run-1"), ("succeeded", "ridge", "at_most(mae)", "air-time@1", "flights@1")),
        (("models", "ls"), ("air-time@2", "champion", "mae 6.91")),
        (("models", "show", "air-time"), ("air-time@1", "distance, hour, ratio")),
        (("history", "air-time"), ("canary 2 25%", "2013-03-02 06:00:00", "deploy")),
        (("history", "air-time", "--at", "2013-03-01T12:00:00Z"), ("champion 1 100%",)),
        (("history", "air-time", "--at", "2012-01-01"), ("nothing of air-time was deployed",)),
        (("data", "ls"), ("flights", "20")),
        (("data", "versions", "flights"), ("flights@2", "gold", "between(distance): fail on 3 rows")),
        (("alerts",), ("psi distance", "open", "mulle monitor air-time")),
        (("monitor", "air-time"), ("psi", "distance", "0.31", "6.9")),
        (("explain", "p1"), ("150.5", "152", "route.air_time", "air-time@1 as champion")),
    ],
)
def test_what_is_looked_at_is_shown_in_words(cli, arguments, wanted):
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "")
    for text in wanted:
        assert text in out


@pytest.mark.parametrize(
    "arguments",
    [("runs", "ls"), ("models", "ls"), ("history", "air-time"), ("data", "ls"), ("data", "versions", "flights"), ("alerts",)],
)
def test_a_listing_as_json_is_items_and_next(cli, arguments):
    code, out, _ = cli(*arguments, "--json")
    view = json.loads(out)
    assert code == 0
    assert view["items"]
    assert view["next"] is None


def test_global_options_may_stand_before_or_after_the_command(cli, home):
    folder = str(home.folder)
    before = cli("--json", "--project", folder, "models", "show", "air-time")[1]
    after = cli("models", "show", "air-time", f"--project={folder}", "--json")[1]
    assert json.loads(before) == json.loads(after)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("runs", "show", "nope"), 2, "no run 'nope'"),
        (("models", "show", "nope"), 2, "known models: air-time, idle"),
        (("history", "nope"), 2, "no model 'nope'"),
        (("history", "air-time", "--at", "soon"), 2, "'soon' is not a time"),
        (("runs", "ls", "--state", "odd"), 2, "choose from"),
        (("runs", "ls", "--limit", "many"), 2, "--limit"),
        (("nonsense",), 2, "nonsense"),
        (("explain", "p9"), 2, "no prediction 'p9'"),
        (("run", "nope"), 2, "declared: air-time, idle"),
        (("deploy", "air-time@9"), 2, "no version '9'"),
        (("predict", "air-time"), 2, "--row"),
        (("predict", "air-time", "--row", "{x"), 2, "not JSON"),
    ],
)
def test_wrong_use_is_told_with_what_to_do_next(cli, arguments, code, told):
    found, out, err = cli(*arguments)
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err


def test_errors_are_problem_documents_with_json(cli):
    code, _, err = cli("runs", "show", "nope", "--json")
    problem = json.loads(err)
    assert code == 2
    assert (problem["status"], problem["type"], problem["retryable"]) == (404, "https://mulle.dev/errors/not-found", False)
    assert problem["next"]
    assert json.loads(cli("runs", "ls", "--wrong", "--json")[2])["status"] == 400


def test_a_project_that_fails_to_import_is_told_by_file_line_and_cause(cli, home):
    (home.folder / "project.py").write_text("import mulle as ml\n\nx = undefined_name\n")
    code, _, err = cli("status")
    assert code == 2
    assert "project.py, line 3: NameError: name 'undefined_name' is not defined" in err
    assert "Traceback" not in err
    assert "Traceback" in cli("status", "--debug")[2]


def test_a_folder_without_a_project_says_how_to_make_one(cli, tmp_path):
    code, _, err = cli("status", "--project", str(tmp_path / "none"))
    assert code == 2
    assert "mulle new" in err


def test_predict_without_a_server_says_how_to_start_one(cli, monkeypatch):
    monkeypatch.setenv("MULLE_INFERENCE_PORT", "1")
    code, _, err = cli("predict", "air-time", "--row", '{"distance": 1}')
    assert code == 3
    assert "mulle up" in err


def test_predict_sends_rows_and_shows_answers(cli, server, monkeypatch):
    seen, answers = server
    told = {"model": "air-time", "version": 1, "predictions": [{"id": "p", "value": 227.4, "version": 1, "route": "champion"}]}
    answers["/v1/models/air-time/predict"] = (200, told)
    code, out, _ = cli("predict", "air-time", "--row", '{"distance": 1400}')
    assert code == 0
    assert "227.4" in out
    assert seen == [("/v1/models/air-time/predict", {"rows": [{"distance": 1400}]})]
    monkeypatch.setenv("MULLE_TOKEN", "secret")
    assert json.loads(cli("predict", "air-time", "--row", '{"distance": 1400}', "--json")[1]) == told


def test_a_refusal_of_the_server_keeps_its_words_and_its_exit_code(cli, server):
    _, answers = server
    problem = {
        "type": "https://mulle.dev/errors/schema",
        "status": 422,
        "detail": "row 0: distance is 'far'",
        "next": "send a number",
        "field": "distance",
    }
    answers["/v1/models/air-time/predict"] = (422, problem)
    code, _, err = cli("predict", "air-time", "--row", '{"distance": "far"}')
    assert (code, err) == (1, "error: row 0: distance is 'far'\nnext: send a number\n")


def test_labels_from_a_csv_are_taken_without_a_server(cli, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "flight_id,time,value,reason\n007,2013-03-01T10:00:00Z,231,\n008,2013-03-01,,cancelled\n"
    )
    code, out, _ = cli("label", "air-time", "--input", str(tmp_path / "labels.csv"), "--by", "ada", "--json")
    assert (code, json.loads(out)["accepted"], json.loads(out)["by"]) == (0, 2, "ada")
    code, out, _ = cli("label", "air-time", "--input", str(tmp_path / "labels.csv"), "--json")
    assert (code, json.loads(out)["accepted"], json.loads(out)["duplicates"]) == (0, 0, 2)


def test_rows_are_read_from_json_lines_and_wrapped_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (tmp_path / "b.json").write_text('{"rows": [{"x": 1}, {"x": 2}]}')
    assert read_rows(str(tmp_path / "a.jsonl"), "rows") == read_rows(str(tmp_path / "b.json"), "rows")
    assert typed({"x": "far"}, {"x": "FP64"}) == {"x": "far"}


def test_the_doctor_names_its_checks(cli):
    code, out, _ = cli("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(out)["checks"]}
    assert set(checks) >= {"python", "disk", "home", "project", "database", "lake", "control port"}
    assert code == (1 if any(c["verdict"] == "fail" for c in checks.values()) else 0)


def test_interrupting_leaves_with_130(cli, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mulle.loop.views.status.status_view", interrupted)
    assert cli("status")[0] == 130


def test_a_fault_of_ours_is_short_and_points_to_debug(cli, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("mulle.loop.views.status.status_view", broken)
    code, _, err = cli("status")
    assert code == 1
    assert "RuntimeError: boom" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_listening_beyond_loopback_without_a_token_is_refused(cli, monkeypatch):
    monkeypatch.setenv("MULLE_HOST", "0.0.0.0")
    monkeypatch.delenv("MULLE_TOKEN", raising=False)
    code, _, err = cli("serve")
    assert code == 2
    assert "without a token" in err


def test_the_log_is_asked_with_sql_and_a_mistake_names_the_columns(cli):
    code, out, _ = cli("predictions", "air-time", "--since", "2013-01-01T00:00:00Z", "--json")
    told = json.loads(out)
    assert (code, {item["id"] for item in told["items"]}, told["next"]) == (0, {"p1", "p2", "p3"}, None)
    query = "select route, count(*) as n from predictions group by 1 order by 1"
    code, out, _ = cli("predictions", "--since", "2013-01-01T00:00:00Z", "--sql", query, "--json")
    assert (code, json.loads(out)["items"][0]) == (0, {"route": "canary", "n": 1})
    code, _, err = cli("predictions", "--sql", "select nope from predictions")
    assert code == 2
    assert "key_text" in err
    code, _, err = cli("predictions", "air-tme")
    assert code == 2
    assert "air-time" in err


def test_gc_says_in_words_that_there_is_nothing_to_remove(cli):
    code, out, _ = cli("gc", "--dry-run")
    assert (code, out.startswith("nothing to remove: no logged row is older than its model keeps it")) == (0, True)
    code, out, _ = cli("gc", "--dry-run", "--json")
    assert (code, json.loads(out)["items"], json.loads(out)["removed"]) == (0, [], False)


def test_gc_says_in_words_what_would_go_and_what_went(cli, home, monkeypatch):
    monkeypatch.setenv("MULLE_KEEP", "1s")
    scratch = home.parts.settings.home / "runs" / "run-1"
    scratch.mkdir(parents=True)
    (scratch / "cut.parquet").write_bytes(b"x" * 500)
    code, out, _ = cli("gc", "--dry-run")
    assert code == 0
    for said in ("Would go", "scratch", str(scratch), "500", "what the run of air-time on"):
        assert said in out
    assert scratch.exists()
    code, out, _ = cli("gc")
    assert (code, "Removed" in out, scratch.exists()) == (0, True, False)
