"""Explaining answers: what each feature did to them, worked out in a child process and only when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from mulle.core.errors import Deadline, Overloaded, TooLarge
from mulle.kernel.encode import encode
from mulle.kernel.routes import RoutedVersion
from mulle.kernel.transform import frame_from_rows
from mulle.kernel.worker import Worker
from mulle.lifecycle.serving.score import Answer, Ready
from mulle.lifecycle.serving.shelf import Loaded

__all__ = ["MOST", "Explaining", "explained_members"]

MOST = 100
"""Rows of one request that are explained: each costs as much as hundreds of answers."""

_WAITING = 16


class Routes(Protocol):
    """Where loaded versions are found."""

    async def deployments(self, model: str, version: int | None = None) -> Sequence[Ready]:
        """Return what answers."""
        ...

    def route_of(self, model: str, version: int) -> RoutedVersion:
        """Return where a version's bundle is."""
        ...


class Explaining:
    """The child that explains, and the requests that wait for it; one at a time, so that it never takes two cores.

    Parameters
    ----------
    seconds : float
        Longest time from a request's arrival to its explanation.
    memory : int
        Bytes that the child may hold.
    """

    def __init__(self, *, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._worker = Worker(seconds=seconds, memory=memory)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mulle-explain")
        self._waiting = 0

    def check(self, rows: Sequence[object]) -> None:
        """Refuse before anything is answered what would not be explained.

        Raises
        ------
        TooLarge, Overloaded
        """
        if len(rows) > MOST:
            raise TooLarge(f"{len(rows)} rows to explain in one request, at most {MOST}", next="split them, or leave explain out")
        if self._waiting >= _WAITING:
            raise Overloaded(
                f"{self._waiting} requests wait for their explanation", next="try again after the time named", retry_after=1
            )

    async def add(
        self,
        routes: Routes,
        model: str,
        rows: Sequence[Mapping[str, Any]],
        answers: Sequence[Answer],
        *,
        now: datetime,
        started: float,
    ) -> None:
        """Add ``contributions``, ``base``, ``explains`` and ``by`` to answers; see `explained_members`.

        Parameters
        ----------
        rows, answers : sequence
            In the same order; each is explained by the version that answered it.
        now : datetime
        started : float
            When the request came, `time.perf_counter`.

        Raises
        ------
        Deadline
            When the time was up.
        Unavailable
            When the child died.
        """
        groups: dict[tuple[str, int], list[int]] = {}
        for index, answer in enumerate(answers):
            groups.setdefault((answer.get("model", model), answer["version"]), []).append(index)
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, self._seconds - (perf_counter() - started))):
                for (name, version), indexes in groups.items():
                    loaded = (await routes.deployments(name, version))[-1].loaded[0]
                    folder = Path(routes.route_of(name, version).address)
                    chosen = [rows[i] for i in indexes]
                    work = partial(self._explained, loaded, folder, chosen, now, started + self._seconds)
                    members = await asyncio.get_running_loop().run_in_executor(self._thread, work)
                    for index, told in zip(indexes, members, strict=True):
                        answers[index].update(told)
        except TimeoutError:
            raise Deadline(
                f"the answers of {model} were not explained in time", next="send fewer rows, or leave explain out", model=model
            ) from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the child."""
        self._worker.close()
        self._thread.shutdown(cancel_futures=True)

    def _explained(
        self, loaded: Loaded, folder: Path, rows: Sequence[Mapping[str, Any]], now: datetime, until: float
    ) -> list[dict[str, object]]:
        if perf_counter() >= until:
            return []  # nobody waits for it any more
        contract = loaded.contract
        frame = frame_from_rows(rows, contract.inputs, model=loaded.model, time=contract.time, now=now)
        if loaded.joins is not None:
            frame, _ = loaded.joins.join(frame, time=contract.time, now=now)
        matrix = encode(loaded.predictor.transform(frame), contract.features)
        return explained_members(*self._worker.call("explain", folder, matrix, seconds=until - perf_counter()))


def explained_members(words: Mapping[str, Any], cells: Any) -> list[dict[str, object]]:
    """Give each row's members of an explanation, as every surface shows them.

    Returns
    -------
    list of dict
        ``contributions`` by column of the feature function and ``base``; together they add up to what `explains` names:
        the ``value`` of a regression, the ``margin`` or ``probability`` of the answered class. `by` is ``trees`` (exact,
        by the model's own structure) or ``permutation`` (against the bundle's sample).

    Examples
    --------
    >>> import numpy as np
    >>> words = {"columns": ["x"], "explains": "value", "by": "trees"}
    >>> explained_members(words, np.array([[1.5, 2.0]]))[0]["contributions"]
    {'x': 1.5}
    """
    return [
        {
            "contributions": dict(zip(words["columns"], row[:-1], strict=True)), "base": row[-1], "explains": words["explains"],
            "by": words["by"],
        }
        for row in cells.tolist()
    ]  # fmt: skip
