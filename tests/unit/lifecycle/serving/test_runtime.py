"""The runtime in this process: fleets, shadows, overload, deadlines, and memory that is kept within its bound."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

import polars as pl
import pytest
from serving_parts import T0, bundle, route, row, version

from mulle.core.errors import ContractError, Deadline, NotFound, Overloaded, TooLarge, TransformError
from mulle.core.hashing import hash_folder
from mulle.core.settings import Settings
from mulle.kernel.routes import ROUTES, ModelRoutes, Routed, RoutedVersion, RoutingTable, write_routes
from mulle.lifecycle.serving.log import log_folder, read_records
from mulle.lifecycle.serving.rows import prediction_rows
from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.shelf import Shelf
from mulle.lifecycle.serving.table import EAGER

Made = tuple[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder / str(n), offset=float(n)) for n in range(4)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@asynccontextmanager
async def runtime(home: Path, **settings: Any) -> AsyncIterator[Runtime]:
    made = Runtime(replace(Settings(home=home).resolved(), **settings), lambda contract: pytest.fail("no joins here"))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def ask(server: Runtime, *rows: dict[str, object], model: str = "trip", request: str = "r", **more: Any) -> Awaitable[Any]:
    return server.submit(model, rows, request, None, time.perf_counter(), **more)


def publish(home: Path, models: dict[str, ModelRoutes], generation: int = 1) -> None:
    write_routes(home / ROUTES, RoutingTable(generation=generation, models=models))


def alone(made: Made, number: int = 1, each: str | None = None) -> ModelRoutes:
    move = Routed(id=f"d{number}", effective_at=T0, salt="s", routes=(version(number, made),))
    return ModelRoutes(deployments=(move,), each=each)


def line_of(home: Path, routes: ModelRoutes) -> bytes:
    """One model's line in the file, without its name: ten thousand of them are not to be made one by one."""
    publish(home, {"m": routes}, 0)
    return (home / ROUTES).read_bytes().split(b"\n")[1].removeprefix(b'"m":')


def place(home: Path, generation: int, lines: dict[str, bytes]) -> None:
    body = b",\n".join(b'"%s":%s' % (name.encode(), line) for name, line in lines.items())
    (home / "new").write_bytes(b'{"generation":%d,"models":{\n%s\n}}\n' % (generation, body))
    (home / "new").rename(home / ROUTES)


def logged(home: Path) -> pl.DataFrame:
    found = [r.payload for p in sorted(log_folder(home).glob("predictions-*.seg")) for r in read_records(p.read_bytes())]
    return prediction_rows(found)


class Gate:
    """What a bundle's code waits at; one that is kept there for longer than anything but it takes goes on, and is noticed."""

    def __init__(self, folder: Path) -> None:
        self.open, self.passed = folder / "open", folder / "passed"
        self.code = (
            f"import os, time\nend = time.monotonic() + 20\n"
            f"while not os.path.exists({str(self.open)!r}) and time.monotonic() < end:\n    time.sleep(0.005)\n"
            f"open({str(self.passed)!r}, 'w').close()\n"
        )


def sleeping(folder: Path, seconds: float, *, offset: float = 0.0, gate: Gate | None = None) -> Made:
    """A bundle whose feature function takes its time and notes each of its runs in a file beside it."""
    _, made = bundle(folder, offset=offset)
    source = (made / "transform" / "project.py").read_text()
    held = indent(gate.code, "    ") if gate else ""
    slow = f"{held}    import time; open({str(folder / 'runs')!r}, 'a').write('x'); time.sleep({seconds})\n    boom ="
    (made / "transform" / "project.py").write_text(source.replace("    boom =", slow, 1))
    contract = (made / "bundle.json").read_text().replace('"t1"', f'"slow{folder.name}"')
    (made / "bundle.json").write_text(contract)
    return hash_folder(made), made


async def until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.005)


def test_rows_go_to_the_members_of_a_fleet_and_come_back_in_order(home: Path, made: list[Made]) -> None:
    publish(home, {"trip": alone(made[0], each="kind"), "trip/a": alone(made[1], 5), "trip/b/c": alone(made[2], 6)})

    async def play() -> None:
        async with runtime(home) as server:
            answers = await ask(server, row(1, kind="b/c"), row(2, kind="a"), row(3, kind="new"), row(4, kind="a"))
            assert [a["model"] for a in answers] == ["trip/b/c", "trip/a", "trip", "trip/a"]
            assert [a["version"] for a in answers] == [6, 5, 1, 5]
            assert [a["value"] for a in answers] == [4.0, 3.0, 2.0, 3.0]
            (alone_answer,) = await ask(server, row(5), model="trip/b/c")
            assert (alone_answer["version"], "model" in alone_answer) == (6, False)
            with pytest.raises(NotFound):
                ask(server, row(6), model="trip/unknown")
            with pytest.raises(ContractError) as refused:
                await ask(server, row(7, kind="a"), row(8, kind="b/c"), row(9, kind="b/c", size="far"))
            assert refused.value.facts["row"] == 2

    asyncio.run(play())
    rows = logged(home).filter(pl.col("key_text").is_in(["1", "2", "3", "4"])).sort("key_text")
    assert rows["model"].to_list() == ["trip/b/c", "trip/a", "trip", "trip/a"]
    assert rows["request"].is_unique().all(), "by the request a canary's answers are paired"


@pytest.mark.parametrize("fsync", [False, True])
def test_a_fleets_request_that_is_refused_for_one_row_logs_no_row_as_answered(home: Path, made: list[Made], fsync: bool) -> None:
    publish(home, {"trip": alone(made[0], each="kind"), "trip/a": alone(made[1], 5), "trip/b": alone(made[2], 6)})

    async def play() -> None:
        async with runtime(home, fsync=fsync) as server:
            mixed = [row(1, kind="a"), row(2, kind="b"), row(3, kind="new")]
            for bad in (row(4, kind="b", size="far"), row(4, kind="boom")):
                with pytest.raises((ContractError, TransformError)):
                    await ask(server, *mixed, bad)
            # What breaks no contract, beside requests that do: nobody's records are mixed with another's.
            whole, refused, one = await asyncio.gather(
                ask(server, row(11, kind="a"), row(12, kind="b"), request="w"),
                ask(server, row(21, kind="a"), row(22, kind="b", size="far"), request="x"),
                ask(server, row(31, kind="a"), request="o"),
                return_exceptions=True,
            )
            assert isinstance(refused, ContractError)
            assert [a["model"] for a in whole] == ["trip/a", "trip/b"]
            assert [a["model"] for a in one] == ["trip/a"]
            at_once = set(logged(home).filter(pl.col("route") != "refused")["key_text"])
            assert at_once == {"11", "12", "31"}, "logged before it was answered"

    asyncio.run(play())
    rows = logged(home)
    assert sorted(rows.filter(pl.col("route") == "champion")["key_text"]) == ["11", "12", "31"]
    assert (rows["route"] == "refused").sum() == 3


def test_a_shadow_scores_after_the_answer_and_is_the_first_to_be_left_out(home: Path, made: list[Made], tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gate.open.touch()  # while the bundle is loaded, and tried
    slow = sleeping(tmp_path / "slow", 0.3, offset=9.0, gate=gate)
    route(home, version(1, made[0]), version(2, slow, share=0.0, mode="shadow"))

    async def play() -> Runtime:
        async with runtime(home) as server:
            gate.open.unlink()
            gate.passed.unlink(missing_ok=True)
            answers = [await ask(server, row(n), request=f"r{n}") for n in range(3)]
            assert not gate.passed.exists(), "no answer waited for the shadow"
            gate.open.touch()
            assert [a[0]["version"] for a in answers] == [1, 1, 1]
            # As many more rows as a shadow may be behind: it cannot keep up, and answers do not care.
            many = await asyncio.gather(*(ask(server, *[row(n) for n in range(200)], request=f"m{m}") for m in range(8)))
            assert {a["version"] for part in many for a in part} == {1}
        return server

    server = asyncio.run(play())
    rows = logged(home)
    shadows = rows.filter(pl.col("version") == 2)
    assert set(shadows["route"]) == {"shadow"}
    assert {"r0", "r1", "r2"} <= set(shadows["request"]), "what it took it has scored, paired with the champion's request"
    left = server.tally.dropped[("trip", "2")]
    assert left > 0
    assert left + shadows.height == rows.filter(pl.col("version") == 1).height == 1603


def test_a_shadow_that_fails_is_counted_and_harms_nobody(home: Path, made: list[Made], tmp_path: Path) -> None:
    _, folder = bundle(tmp_path / "bad")
    source = (folder / "transform" / "project.py").read_text().replace('kind="kind"', 'kind="missing"')
    (folder / "transform" / "project.py").write_text(source)
    (folder / "bundle.json").write_text((folder / "bundle.json").read_text().replace('"t1"', '"t2"'))
    route(home, version(1, made[0]), version(2, (hash_folder(folder), folder), share=0.0, mode="shadow"))

    async def play() -> None:
        async with runtime(home) as server:
            assert (await ask(server, row()))[0]["version"] == 1
            await until(lambda: server.tally.faults[("trip", "2")] == 1)

    asyncio.run(play())


def test_what_nobody_waits_for_is_not_worked_out(home: Path, tmp_path: Path) -> None:
    route(home, version(1, sleeping(tmp_path / "slow", 0.25)))
    runs = tmp_path / "slow" / "runs"

    async def gone() -> None:
        return None

    async def play() -> None:
        async with runtime(home, deadline="600ms") as server:
            warm = len(runs.read_text())
            # Of one version and then none: they are batches of their own, one after the other.
            first = ask(server, row(1))
            await asyncio.sleep(0)
            waits = [server.submit("trip", [row(n)], f"p{n}", 1 if n % 2 else None, time.perf_counter()) for n in range(6)]
            left = server.submit("trip", [row(9)], "left", 1, time.perf_counter(), gone)
            found = await asyncio.gather(first, *waits, left, return_exceptions=True)
            late = [f for f in found[:-1] if isinstance(f, Deadline)]
            assert isinstance(found[-1], Deadline)
            assert late
            assert len(late) < len(waits)
            await until(lambda: server.waiting() == 0)
            assert len(runs.read_text()) - warm <= 1 + len(waits) - len(late) + 1, "only what was still waited for was begun"

    asyncio.run(play())


def test_a_queue_that_takes_too_long_is_refused_with_the_time_it_takes(home: Path, tmp_path: Path) -> None:
    route(home, version(1, sleeping(tmp_path / "slow", 0.2)))

    async def play() -> None:
        async with runtime(home, deadline="5s") as server:
            for n in range(6):  # it learns how long a batch takes
                await ask(server, row(n))
            taken: list[Awaitable[Any]] = []
            refused: list[Overloaded] = []
            while not refused and len(taken) < 6_000:
                try:
                    taken.append(ask(server, row(len(taken)), request=f"r{len(taken)}"))
                except Overloaded as error:
                    refused.append(error)
            assert refused
            assert refused[0].facts["retry_after"] >= 1
            assert "takes about" in refused[0].detail
            answers = await asyncio.gather(*taken, return_exceptions=True)
            assert [a for a in answers if not isinstance(a, list)] == [], "what was taken is answered in time"

    asyncio.run(play())


def test_a_request_of_more_rows_than_the_queue_takes_is_too_large_and_one_that_fills_it_is_answered(
    home: Path, made: list[Made]
) -> None:
    publish(home, {"trip": alone(made[0])})

    async def play() -> None:
        async with runtime(home, max_queue=10) as server:
            with pytest.raises(TooLarge, match="11 rows in one request, at most 10"):
                ask(server, *(row(n) for n in range(11)))  # an empty queue is no reason to take what it never holds
            first, second = ask(server, *(row(n) for n in range(10))), None
            with pytest.raises(Overloaded):
                second = ask(server, row(99))
            assert (len(await first), second) == (10, None)

    asyncio.run(play())


def test_models_go_when_memory_is_short_but_ordinary_champions_stay(home: Path, made: list[Made]) -> None:
    members = {f"trip/{n}": alone(made[n % 3], n + 1) for n in range(40)}
    publish(home, {"trip": alone(made[0], 99, each="kind"), **members})
    size = Shelf(lambda contract: pytest.fail("no joins")).get("trip", version(1, made[0])).size

    async def play() -> None:
        async with runtime(home, max_memory=size * 10) as server:
            assert server.table.loaded() == ["trip"], "members are loaded as they are asked for"
            for n in range(40):
                answers = await ask(server, row(n, kind=str(n)))
                assert (answers[0]["model"], answers[0]["version"]) == (f"trip/{n}", n + 1)
                assert len(server.table.loaded()) <= 10
            assert "trip" in server.table.loaded()
            assert "trip/39" in server.table.loaded()
            assert server.table.versions("trip/0") == []
            assert (await ask(server, row(kind="0")))[0]["version"] == 1

    asyncio.run(play())


def test_many_models_of_their_own_are_loaded_as_they_are_asked_for(home: Path, made: list[Made]) -> None:
    publish(home, {f"m{n}": alone(made[1]) for n in range(EAGER + 1)})

    async def play() -> None:
        async with runtime(home) as server:
            assert server.table.loaded() == []
            assert (await ask(server, row(), model="m7"))[0]["value"] == 3.0
            assert server.table.loaded() == ["m7"]

    asyncio.run(play())


def test_opening_one_model_never_stalls_anothers_answers(home: Path, made: list[Made], tmp_path: Path) -> None:
    _, folder = bundle(tmp_path / "heavy")
    source = (folder / "transform" / "project.py").read_text()
    gate = Gate(tmp_path)
    (folder / "transform" / "project.py").write_text(gate.code + source)
    models = {"trip": alone(made[0]), "trip/heavy": alone((hash_folder(folder), folder))}
    publish(home, models)

    async def play() -> None:
        async with runtime(home) as server:
            opening = asyncio.ensure_future(ask(server, row(), model="trip/heavy"))
            for number in range(30):
                await ask(server, row(number))
            assert not gate.passed.exists(), "all were answered while the other was being opened"
            gate.open.touch()
            assert (await opening)[0]["value"] == 2.0

    asyncio.run(play())


def test_ten_thousand_routes_are_taken_up_beside_the_answers(home: Path, made: list[Made]) -> None:
    member = line_of(home, alone(made[1]))
    lines = {f"trip/{n}": member for n in range(10_000)} | {"trip": line_of(home, alone(made[0], each="kind"))}
    later = lines | {"trip/77": line_of(home, alone(made[2], 2)), "trip/new": line_of(home, alone(made[3], 3))}

    async def play() -> tuple[float, float]:
        place(home, 1, lines)
        async with runtime(home) as server:
            assert len(server.table.models()) == 10_001
            assert (await ask(server, row(kind="77")))[0]["version"] == 1
            place(home, 2, later)
            began, slowest = time.perf_counter(), 0.0
            while server.table.generation < 2:
                turn = time.perf_counter()
                await asyncio.sleep(0)
                slowest = max(slowest, time.perf_counter() - turn)
            took = time.perf_counter() - began
            assert [a["version"] for a in await ask(server, row(kind="77"), row(kind="new"), row(kind="5"))] == [2, 3, 1]
            return took, slowest

    took, slowest = asyncio.run(play())
    assert took < 3.0
    assert slowest < 0.5


def test_a_bundle_is_opened_once_however_many_ask(made: list[Made]) -> None:
    shelf, found = Shelf(lambda contract: pytest.fail("no joins")), list[object]()
    asked = RoutedVersion(version=1, share=1.0, mode="champion", bundle=made[0][0], address=str(made[0][1]))
    threads = [threading.Thread(target=lambda: found.append(shelf.get("trip", asked))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(f) for f in found}) == 1
    used = shelf.used
    assert shelf.let_go("trip") == [1]
    assert (shelf.used, used > 0) == (0, True)
