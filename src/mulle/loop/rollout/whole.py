"""Holds what a pointer would move to against what was registered: no server loads a bundle whose files changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mulle.core.errors import BundleError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment
from mulle.core.records.window import Alert, AlertEvent
from mulle.kernel.bundle import verify
from mulle.lifecycle.monitoring.alerts import STUCK
from mulle.lifecycle.rollout.plan import champions_before
from mulle.loop.parts import Parts

__all__ = ["alert_stuck", "check_return", "check_whole", "whole_before"]


def check_whole(parts: Parts, model: str, version: int) -> None:
    """Refuse a version whose files are not what was registered; one that the records do not know is left to who asks for it.

    Raises
    ------
    BundleError
        Naming both hashes.
    """
    record = parts.metadata.models.get(model, version)
    if record is not None:
        verify(Path(record.address), record.bundle)


def whole_before(parts: Parts, history: Sequence[Deployment], now: datetime) -> int | None:
    """Return the newest champion before the present one whose files are whole, or None."""
    return next((v for v in champions_before(history, now) if _is_whole(parts, history[-1].model, v)), None)


def check_return(parts: Parts, history: Sequence[Deployment], version: int, now: datetime) -> None:
    """Refuse to go back to a version whose files are not what was registered.

    Raises
    ------
    BundleError
        Its next step names the newest earlier champion that is whole.
    """
    model = history[-1].model
    try:
        check_whole(parts, model, version)
    except BundleError as error:
        other = whole_before(parts, history, now)
        further = (
            f"go back to one that is whole: `mulle rollback {model} --to {other}`" if other else f"see `mulle models ls {model}`"
        )
        said = f"{model}@{version} is not gone back to: {error.detail}"
        raise BundleError(said, next=f"restore the folder, or {further}", model=model, **error.facts) from error


def alert_stuck(parts: Parts, last: Deployment, why: str, now: datetime) -> str:
    """Open an alert on a champion that should be gone back from, and cannot be; returns what to do."""
    wanted = f"restore the folder, or `mulle deploy {last.model}@VERSION`"
    alert = Alert(
        id=derived_id(last.effective_at, "alert", last.model, STUCK, last.id), created_at=now, model=last.model, signal=STUCK,
        causes=(Cause(type="deployment", id=last.id, why=why),), feature="", severity="critical", next=wanted,
        evidence={"reason": why},
    )  # fmt: skip
    id = derived_id(last.effective_at, "alert_event", alert.id, "open")
    parts.metadata.alerts.add(alert, AlertEvent(id=id, alert=alert.id, at=now, kind="open", evidence=alert.evidence))
    return wanted


def _is_whole(parts: Parts, model: str, version: int) -> bool:
    try:
        check_whole(parts, model, version)
    except BundleError:
        return False
    return True
