"""Late labels: read from a request, counted against what this worker has seen, logged like predictions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from mulle.core.clock import instant
from mulle.core.errors import ContractError, Malformed, TooLarge, UsageError
from mulle.core.hashing import hash_bytes
from mulle.core.records.base import to_json
from mulle.core.records.prediction import Label
from mulle.kernel.keys import key_text
from mulle.kernel.redact import hidden_key
from mulle.lifecycle.serving.ids import fresh_ids
from mulle.lifecycle.serving.log import pack

__all__ = ["Receipt", "Remembered", "read_labels"]

_FIELDS = {"prediction_id", "model", "key", "time", "value", "reason", "known_at", "by"}
_MEMORY = 200_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of posted labels.

    Attributes
    ----------
    labels : list of Label
        Accepted, duplicates left out.
    duplicates : int
        Already told to this worker with the same value.
    unknown : list of dict
        ``index`` and ``why`` of labels that belong to nothing: no such model, no possible prediction id.
    """

    labels: list[Label]
    duplicates: int
    unknown: list[dict[str, object]]

    def records(self) -> list[bytes]:
        """Give the accepted labels as one framed log record."""
        return [pack(orjson.dumps([to_json(label) for label in self.labels]))] if self.labels else []


class Remembered:
    """The last labels of this worker, so that a repeated post is seen; best effort, bounded."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def add(self, labels: Sequence[Label]) -> None:
        """Remember labels once they are logged."""
        for label in labels:
            self._seen[_mark(label)] = None
        while len(self._seen) > _MEMORY:
            self._seen.popitem(last=False)

    def split(self, labels: Sequence[Label]) -> tuple[list[Label], int]:
        """Part new labels from those already told, in this post or before; returns the new ones and the others' count."""
        fresh, here = [], set()
        for label in labels:
            mark = _mark(label)
            if mark not in self._seen and mark not in here:
                here.add(mark)
                fresh.append(label)
        return fresh, len(labels) - len(fresh)


def read_labels(
    body: object,
    *,
    now: datetime,
    known: Callable[[str], bool],
    columns: Callable[[str], tuple[str, ...]],
    remembered: Remembered,
    most: int,
    by: str = "",
    hidden: Callable[[str], Collection[str]] = lambda _: (),
) -> Receipt:
    """Read a request's labels.

    Parameters
    ----------
    body : JSON value
        ``{"labels": [...], "model": ...}``; a label names a prediction id, or a key (and a time).
    now : datetime
        Stands in for a missing ``known_at``.
    known : callable
        Tells whether a model exists.
    columns : callable
        Gives a model's key columns, in order; empty when they are not known here.
    most : int
        Largest number of labels in one request.
    hidden : callable
        Gives a model's redacted columns; a key's values of these are kept by their pseudonym.

    Raises
    ------
    Malformed
        When the body has no list of labels, or (`TooLarge`) too many.
    ContractError
        When a label cannot be understood; facts name ``row`` and ``field``. None of the request's labels is taken then.
    """
    given = body.get("labels") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(given, list):
        raise Malformed("a post of labels is an object with a list 'labels'", next='send {"labels": [{...}]}')
    if not given:
        raise Malformed("there are no labels in the list", next="send at least one")
    if len(given) > most:
        raise TooLarge(f"{len(given)} labels in one request, at most {most}", next="split them")
    labels: list[Label] = []
    unknown: list[dict[str, object]] = []
    for index, (id, item) in enumerate(zip(fresh_ids(int(now.timestamp() * 1e6), len(given)), given, strict=True)):
        label = _label(index, id, item, str(body.get("model") or ""), now, by)
        label = _ordered(index, label, columns(label.model))
        if label.key and (redact := hidden(label.model)):
            label = replace(label, key=hidden_key(label.key, redact))
        why = _why_unknown(label, known)
        if why:
            unknown.append({"index": index, "why": why})
        else:
            labels.append(label)
    fresh, duplicates = remembered.split(labels)
    return Receipt(fresh, duplicates, unknown)


def _label(index: int, id: str, item: object, model: str, now: datetime, by: str) -> Label:
    if not isinstance(item, Mapping):
        raise _bad(index, "", f"is a {type(item).__name__}, expected an object")
    for name in item:
        if name not in _FIELDS:
            raise _bad(index, str(name), f"{name} is unknown, expected {', '.join(sorted(_FIELDS))}")
    if "value" not in item:
        raise _bad(index, "value", "value is missing (null says that none will come)")
    prediction, key = item.get("prediction_id"), item.get("key")
    if (prediction is None) == (key is None):
        raise _bad(index, "prediction_id", "names neither a prediction id nor a key, or both")
    if prediction is not None and not isinstance(prediction, str):
        raise _bad(index, "prediction_id", f"prediction_id is {prediction!r}, expected text")
    if key is not None and (not isinstance(key, dict) or not key or key_text(list(key.values())) is None):
        raise _bad(index, "key", f"key is {key!r}, expected an object with the dataset's key columns, none of them null")
    model = str(item.get("model") or model)
    if key is not None and not model:
        raise _bad(index, "model", "is told by key, so the model must be named")
    return Label(
        id=id,
        created_at=now,
        model=model,
        prediction_id=prediction,
        key=key or {},
        time=_instant(index, "time", item.get("time")),
        value=_value(index, item["value"]),
        reason=str(item.get("reason") or ""),
        known_at=_instant(index, "known_at", item.get("known_at")) or now,
        by=str(item.get("by") or by),
    )


def _ordered(index: int, label: Label, columns: tuple[str, ...]) -> Label:
    # A key's text depends on the order of its columns: the dataset's, not the sender's.
    if not label.key or not columns or tuple(label.key) == columns:
        return label
    if set(label.key) != set(columns):
        raise _bad(index, "key", f"key has {', '.join(label.key)}, expected {', '.join(columns)}")
    return replace(label, key={name: label.key[name] for name in columns})


def _value(index: int, value: Any) -> float | str | None:
    if isinstance(value, bool):
        return key_text([value])
    if value is None or isinstance(value, (int, float, str)):
        return value
    raise _bad(index, "value", f"value is {value!r}, expected a number, text or null")


def _instant(index: int, name: str, text: object) -> datetime | None:
    if text is None:
        return None
    try:
        if isinstance(text, str):
            return instant(text)
    except (UsageError, OverflowError):
        pass
    raise _bad(index, name, f"{name} is {text!r}, expected a time such as 2013-03-01T12:00:00Z")


def _why_unknown(label: Label, known: Callable[[str], bool]) -> str:
    if label.model and not known(label.model):
        return f"no model '{label.model}'"
    if label.prediction_id is not None and not (len(label.prediction_id) == 26 and label.prediction_id.isalnum()):
        return f"'{label.prediction_id[:40]}' is not a prediction id"
    return ""


def _bad(index: int, field: str, said: str) -> ContractError:
    expected = "a label has a prediction_id, or a model and a key (and perhaps a time), and a value"
    return ContractError(f"label {index}: {said}", next=expected, row=index, field=field)


def _mark(label: Label) -> bytes:
    about = [
        label.prediction_id,
        label.model if not label.prediction_id else "",
        label.key,
        label.time,
        label.value,
        label.reason,
    ]
    return bytes.fromhex(hash_bytes(orjson.dumps(about, option=orjson.OPT_SORT_KEYS, default=str)))
