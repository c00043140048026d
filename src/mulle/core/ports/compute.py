"""Compute in processes that can be killed."""

from __future__ import annotations

from typing import Protocol

from mulle.core.records.base import Json

__all__ = ["Compute"]


class Compute(Protocol):
    """Runs a named function in another process; arguments and answers are small JSON, never frames."""

    def call(
        self, task: str, arguments: Json, *, timeout: float | None = None, memory: int | None = None, owner: str = ""
    ) -> Json:
        """Run ``module:function`` with keyword arguments and return its answer.

        Parameters
        ----------
        task : str
            For example ``mulle.bootstrap.tasks:run_task``; the function takes JSON keyword arguments and returns a dict.
        arguments : dict
        timeout : float, optional
            Seconds; then the process is killed.
        memory : int, optional
            Bytes; a process that holds more is killed.
        owner : str, optional
            The run that it is for; see `stop`.

        Raises
        ------
        Deadline
            When the time was up and the process was killed.
        Unavailable
            When the process died (killed, out of memory); trying again may help. When it held more memory than it was
            given, fact ``killed`` is ``memory``.
        MulleError
            Whatever error of ours the function raised, rebuilt here.
        """
        ...

    def stop(self, owner: str) -> None:
        """Kill what computes for a run; its calls under way end with `Unavailable`."""
        ...

    def close(self) -> None:
        """End the processes; calls under way end with `Unavailable`. Closing twice is harmless."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was closed: it takes no more calls."""
        ...
