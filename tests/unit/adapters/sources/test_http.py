"""An HTTP endpoint as a source, against a real server: formats, pages, retries, and what is refused."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from mulle.adapters.sources import web
from mulle.adapters.sources.http import HttpReader
from mulle.core.declare.sources import Http
from mulle.core.errors import DataError, Unavailable, UsageError
from mulle.core.ports.source import Batch

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers by a function of path and query; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.answer: Callable[[str, dict[str, str]], Answer | None] = lambda path, query: (404, {}, b"")
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(parts.query).items()}
                server.asked.append((parts.path, query, dict(self.headers)))
                answer = server.answer(parts.path, query)
                if answer is None:  # cut off in the middle
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[{")
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def as_json(value: object, **headers: str) -> Answer:
    return 200, {"Content-Type": "application/json; charset=utf-8", **headers}, json.dumps(value).encode()


def reader(server: Server, **options: Any) -> HttpReader:
    return HttpReader(Http(f"{server.url}/orders", **options), backoff=0)


def read(server: Server, positions: dict[str, Any] | None = None, **options: Any) -> Batch:
    batch = reader(server, **options).read(positions or {})
    assert batch is not None
    return batch


ROWS = [{"id": 1, "x": 1, "none": None}, {"id": 2, "x": 2.5, "late": "a"}]
FORMATS: dict[str, tuple[dict[str, Any], Answer]] = {
    "list": ({}, as_json(ROWS)),
    "below": ({"rows": "data.items"}, as_json({"data": {"items": ROWS}})),
    "lines": ({}, (200, {"Content-Type": "application/x-ndjson"}, b"\n".join(json.dumps(r).encode() for r in ROWS))),
    "csv": ({}, (200, {"Content-Type": "text/csv"}, b"id,x,none,late\n1,1,,\n2,2.5,,a\n")),
    "named": ({"format": "json"}, (200, {"Content-Type": "text/plain"}, json.dumps(ROWS).encode())),
    "vendor": ({}, (200, {"Content-Type": "application/vnd.shop+json"}, json.dumps(ROWS).encode())),
    "packed": (
        {},
        (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(json.dumps(ROWS).encode())),
    ),
}


@pytest.mark.parametrize(("options", "answer"), FORMATS.values(), ids=FORMATS.keys())
def test_each_format_gives_the_same_rows(options: dict[str, Any], answer: Answer, server: Server) -> None:
    server.answer = lambda path, query: answer
    batch = read(server, **options)
    assert batch.frame().to_dicts() == [
        {"id": 1, "x": 1.0, "none": None, "late": None},
        {"id": 2, "x": 2.5, "none": None, "late": "a"},
    ]
    assert batch.positions == {}
    assert batch.repeats is not None
    assert batch.origin == f"{server.url}/orders"


@pytest.mark.parametrize("answer", [as_json([]), as_json({"data": []}), as_json({"data": None}), (204, {}, b"")])
def test_no_rows_are_nothing_new(answer: Answer, server: Server) -> None:
    server.answer = lambda path, query: answer
    assert reader(server, rows="data" if b"data" in answer[2] else None).read({}) is None


PAGES = {1: [{"id": 1}, {"id": 2}], 2: [{"id": 3}], 3: []}


def by_number(_: str, query: dict[str, str]) -> Answer:
    return as_json(PAGES[int(query["page"])])


def by_url(_: str, query: dict[str, str]) -> Answer:
    page = int(query.get("p", 1))
    return as_json({"data": PAGES[page], "links": {"next": f"/orders?p={page + 1}" if page < 3 else None}})


def by_token(_: str, query: dict[str, str]) -> Answer:
    page = {"": 1, "b&c": 2, "d": 3}[query.get("after", "")]
    return as_json({"data": PAGES[page], "token": {1: "b&c", 2: "d", 3: ""}[page]})


def by_header(_: str, query: dict[str, str]) -> Answer:
    page = int(query.get("p", 1))
    links = f'</orders?p=1>; rel="first", </orders?p={page + 1}>; rel="next"' if page < 3 else '</orders?p=1>; rel="first"'
    return as_json(PAGES[page], Link=links)


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (by_number, {"page": "page"}),
        (by_url, {"rows": "data", "next": "links.next"}),
        (by_token, {"rows": "data", "next": "token", "page": "after"}),
        (by_header, {}),
    ],
    ids=["number", "url", "token", "header"],
)
def test_pages_are_followed_to_their_end(
    answer: Callable[[str, dict[str, str]], Answer], options: dict[str, Any], server: Server
) -> None:
    server.answer = answer
    assert read(server, **options).frame()["id"].to_list() == [1, 2, 3]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (lambda path, query: as_json({"data": [{"id": 1}], "next": "/orders"}), {"rows": "data", "next": "next"}),
        (lambda path, query: as_json({"data": [{"id": 1}], "next": "same"}), {"rows": "data", "next": "next", "page": "p"}),
        (lambda path, query: as_json([{"id": 1}], Link='</orders?p=1>; rel="next"'), {}),
        (lambda path, query: as_json([{"id": 1}]), {"page": "page"}),
    ],
    ids=["url", "token", "header", "a number that is ignored"],
)
def test_pages_that_go_in_a_circle_are_refused(answer: Any, options: dict[str, Any], server: Server) -> None:
    server.answer = answer
    with pytest.raises(DataError, match="was given before"):
        reader(server, **options).read({})
    assert len(server.asked) <= 3


def test_a_cursor_asks_for_what_lies_beyond(server: Server) -> None:
    rows = [{"id": i, "at": f"2024-01-01T10:00:0{i}Z"} for i in (2, 1, 3)]
    server.answer = lambda path, query: as_json([r for r in rows if r["id"] >= int(query.get("after", 0))])
    first = read(server, cursor="id", since="after")
    assert first.frame()["id"].to_list() == [2, 1, 3]
    assert first.positions == {"cursor": 3, "behind": 1}
    assert first.repeats is None
    assert reader(server, cursor="id", since="after").read(first.positions) is None, "a server that repeats the last"
    rows.append({"id": 4, "at": "2024-01-01T10:00:04Z"})
    second = read(server, first.positions, cursor="id", since="after")
    assert second.frame()["id"].to_list() == [4]
    assert server.asked[-1][1] == {"after": "3"}


def test_a_cursor_of_times_is_compared_as_times(server: Server) -> None:
    times = ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00.5Z"]
    server.answer = lambda path, query: as_json([{"at": t} for t in times])
    first = read(server, cursor="at", since="after")
    assert first.positions == {"cursor": "2024-01-01T10:00:00.5Z", "behind": 1}
    times.append("2024-01-01T11:00:00+01:00")
    assert reader(server, cursor="at", since="after").read(first.positions) is None, "10:00Z by another name"
    times.append("2024-01-01T11:00:01+01:00")
    assert read(server, first.positions, cursor="at", since="after").frame()["at"].to_list() == times[-1:]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1}, {"id": None}], "'id' is null in 1 rows"),
        ([{"x": 1}], "no column 'id'"),
        ([{"id": "b"}], "changed its type"),
    ],
)
def test_a_cursor_that_cannot_be_followed_is_refused(rows: object, said: str, server: Server) -> None:
    server.answer = lambda path, query: as_json(rows)
    with pytest.raises(DataError, match=said):
        reader(server, cursor="id", since="after").read({"cursor": 0})


@pytest.mark.parametrize("kept_as", [pl.String, pl.Datetime("us", "UTC")])
def test_a_row_that_comes_late_at_the_moment_of_the_cursor_is_read(kept_as: Any, server: Server) -> None:
    rows = [{"id": 1, "at": "2024-01-01T09:00:00Z"}, {"id": 2, "at": "2024-01-01T10:00:00Z"}]
    server.answer = lambda path, query: as_json([r for r in rows if r["at"] >= query.get("from", "")])
    first = read(server, cursor="at", since="from")
    published = first.frame().lazy()
    if kept_as != pl.String:
        published = published.with_columns(pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC"))
    rows.append({"id": 3, "at": "2024-01-01T10:00:00Z"})
    second = read(server, first.positions, cursor="at", since="from")
    assert second.frame()["id"].to_list() == [2, 3]
    assert second.repeats is not None
    assert published.collect_schema()["at"] == kept_as
    assert published.filter(second.repeats).collect()["id"].to_list() == [2]
    assert second.positions == {"cursor": "2024-01-01T10:00:00Z", "behind": 2}
    assert reader(server, cursor="at", since="from").read(second.positions) is None
    rows += [{"id": 4, "at": "2024-01-01T10:00:00Z"}, {"id": 5, "at": "2024-01-01T11:00:00Z"}]
    third = read(server, second.positions, cursor="at", since="from")
    assert third.frame()["id"].to_list() == [2, 3, 4, 5]
    assert third.positions == {"cursor": "2024-01-01T11:00:00Z", "behind": 1}
    rows.append({"id": 6, "at": "2024-01-01T12:00:00Z"})
    fourth = read(server, third.positions, cursor="at", since="from")
    assert (fourth.frame()["id"].to_list(), fourth.repeats) == ([6], None)


def test_rows_at_the_cursor_are_counted_over_all_pages(server: Server) -> None:
    rows = [{"id": i, "n": 7} for i in range(4)]

    def paged(path: str, query: dict[str, str]) -> Answer:
        page = int(query["page"])
        return as_json(rows[2 * page - 2 : 2 * page])

    server.answer = paged
    first = read(server, cursor="n", since="from", page="page")
    assert first.positions == {"cursor": 7, "behind": 4}
    rows.append({"id": 4, "n": 7})
    second = read(server, first.positions, cursor="n", since="from", page="page")
    assert second.frame()["id"].to_list() == [0, 1, 2, 3, 4]
    assert pl.DataFrame({"n": [6, 7, None]}).filter(second.repeats)["n"].to_list() == [7]  # type: ignore[arg-type]


@pytest.mark.parametrize(("column", "last", "now"), [("id", 5, 4), ("at", "2024-01-01T10:00:00Z", "2024-01-01T09:59:59.5Z")])
def test_a_cursor_that_went_back_is_told(column: str, last: object, now: object, server: Server) -> None:
    server.answer = lambda path, query: as_json([{column: now}])
    with pytest.raises(DataError, match=f"cursor '{column}' went back: it was {last}, and is {now}"):
        reader(server, cursor=column, since="from").read({"cursor": last, "behind": 1})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int, server: Server) -> None:
    answers = [(status, {"Retry-After": "0"}, b""), (status, {}, b""), as_json(ROWS)]
    server.answer = lambda path, query: answers.pop(0)
    assert read(server).frame().height == 2
    server.answer = lambda path, query: (status, {}, b"")
    server.asked.clear()
    with pytest.raises(Unavailable, match=str(status)):
        reader(server).read({})
    assert len(server.asked) == 4


def test_an_answer_that_is_cut_off_is_asked_for_again(server: Server) -> None:
    answers = [None, None, as_json(ROWS)]
    server.answer = lambda path, query: answers.pop(0)
    assert read(server).frame().height == 2
    server.answer = lambda path, query: None
    with pytest.raises(Unavailable):
        reader(server).read({})


def test_nothing_of_the_first_pages_is_given_when_a_later_one_fails(server: Server) -> None:
    server.answer = lambda path, query: as_json([{"id": 1}]) if query["page"] == "1" else (500, {}, b"")
    with pytest.raises(Unavailable, match="500"):
        reader(server, page="page").read({})


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_told_with_its_status_at_once(status: int, server: Server) -> None:
    server.answer = lambda path, query: (status, {}, b"no")
    with pytest.raises(DataError, match=str(status)) as caught:
        reader(server).read({})
    assert caught.value.facts == {"status_code": status}
    assert len(server.asked) == 1


WRONG: dict[str, tuple[Answer, dict[str, Any], str]] = {
    "a web page": ((200, {"Content-Type": "text/html"}, b"<html>"), {}, "text/html"),
    "no JSON": ((200, {"Content-Type": "application/json"}, b"<html>"), {}, "no JSON"),
    "an object": (as_json({"data": ROWS}), {}, "it has data"),
    "no such path": (as_json({"items": ROWS}), {"rows": "data"}, "no list of objects at 'data'; it has items"),
    "numbers": (as_json([1, 2]), {}, "no list of objects"),
    "mixed kinds": (as_json([{"id": 1}, {"id": "a"}]), {}, "column 'id' is text"),
    "short CSV": ((200, {"Content-Type": "text/csv"}, b"a,b\n1,2\n3"), {}, "middle of line 3"),
    "broken gzip": ((200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"[{}]"), {}, "compressed"),
}


@pytest.mark.parametrize(("answer", "options", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_table_is_refused(answer: Answer, options: dict[str, Any], said: str, server: Server) -> None:
    server.answer = lambda path, query: answer
    with pytest.raises(DataError, match=said):
        reader(server, **options).read({})


def test_an_answer_without_end_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_LARGEST", 100_000)
    bomb = gzip.compress(b" " * 5_000_000)
    server.answer = lambda path, query: (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, bomb)
    with pytest.raises(DataError, match="larger than"):
        reader(server).read({})


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_nothing_but_http_is_followed(where: str, server: Server) -> None:
    server.answer = lambda path, query: (302, {"Location": where}, b"")
    with pytest.raises(DataError, match="neither http nor https"):
        reader(server).read({})
    server.answer = lambda path, query: as_json([{"id": 1}], Link=f'<{where}>; rel="next"')
    with pytest.raises(DataError, match="neither http nor https"):
        reader(server).read({})
    with pytest.raises(DataError, match="neither http nor https"):
        HttpReader(Http(where)).read({})


def test_a_redirect_is_followed_and_one_without_end_refused(server: Server) -> None:
    server.answer = lambda path, query: (301, {"Location": "/new"}, b"") if path == "/orders" else as_json(ROWS)
    assert read(server).frame().height == 2
    server.answer = lambda path, query: (301, {"Location": "/orders"}, b"")
    with pytest.raises(DataError, match="redirects without end"):
        reader(server).read({})


def test_secrets_go_to_the_declared_server_only_and_into_no_message(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret-word")
    other = Server()
    try:
        other.answer = lambda path, query: as_json([{"id": 2}])
        server.answer = lambda path, query: as_json({"data": [{"id": 1}], "next": f"{other.url}/orders"})
        options = {"headers": {"X-Key": "${A_TOKEN}", "Authorization": "Bearer ${A_TOKEN}"}}
        with pytest.raises(DataError):  # its answer has no data, and it was asked without the secret
            reader(server, rows="data", next="next", **options).read({})
        server.answer = lambda path, query: (302, {"Location": f"{other.url}/moved"}, b"")
        assert read(server, **options).frame()["id"].to_list() == [2]
        assert server.asked[0][2]["X-Key"] == "s3cret-word"
        assert len(other.asked) == 2
        assert not any("s3cret-word" in str(asked) for asked in other.asked)
    finally:
        other.close()
    source = Http("http://127.0.0.1:1/${A_TOKEN}/orders?key=${A_TOKEN}")
    with pytest.raises(Unavailable) as caught:
        HttpReader(source, backoff=0).read({})
    assert "s3cret-word" not in f"{caught.value} {caught.value.facts}"
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(UsageError, match="A_TOKEN"):
        HttpReader(source).read({})


def test_a_silent_server_is_unavailable(server: Server) -> None:
    gate = threading.Event()
    server.answer = lambda path, query: gate.wait(30) and None  # type: ignore[func-returns-value]
    try:
        with pytest.raises(Unavailable):
            reader(server, timeout="50ms").read({})
    finally:
        gate.set()


def test_columns_of_all_pages_are_one_table(server: Server) -> None:
    pages = {"1": [{"id": 1, "x": None}], "2": [{"id": 2.5, "y": "a"}], "3": []}
    server.answer = lambda path, query: as_json(pages[query["page"]])
    found = read(server, page="page").frame()
    assert found.schema == {"id": pl.Float64, "x": pl.Null, "y": pl.String}
    assert found.rows() == [(1.0, None, None), (2.5, None, "a")]
