"""What a search tries next: earlier winners, each candidate as it comes, then what TPE suggests."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from mulle.core.declare.candidates import Candidate
from mulle.core.records.base import Json
from mulle.lifecycle.training.candidates import defaults, space

__all__ = ["labelled", "suggested", "study"]

_STARTUP = 24
"""Trials at random before TPE suggests, at most: a search that time bounds declares more trials than it will make."""


def labelled(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Name the candidates that are searched: by their kind, a second one of a kind with its number.

    Examples
    --------
    >>> from mulle.core.declare.candidates import ridge
    >>> list(labelled([ridge(), ridge(alpha=1.0)]))
    ['ridge', 'ridge#2']
    """
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        many = 1 + sum(c.kind == candidate.kind for c in found.values())
        found[candidate.kind if many == 1 else f"{candidate.kind}#{many}"] = candidate
    return found


def study(
    candidates: Mapping[str, Candidate], warm: Sequence[Mapping[str, Any]], windows: Sequence[str], *, task: str, rows: int,
    trials: int, seed: int,
) -> optuna.Study:  # fmt: skip
    """Begin a study with the first trials in its queue.

    Parameters
    ----------
    candidates : mapping
        By label.
    warm : sequence of mapping
        Settings of earlier winners; they come first.
    windows : sequence of str
    task : str
    rows : int
        The most rows that anything is fitted on.
    trials : int
    seed : int
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(sampler=_sampler(seed, trials))
    for start in _first(candidates, warm, windows, task, rows):
        made.enqueue_trial(start, skip_if_exists=True)
    return made


def suggested(trial: optuna.Trial, candidates: Mapping[str, Candidate], windows: Sequence[str], *, task: str, rows: int) -> Json:
    """Give the settings of a trial: ``candidate`` (its kind), ``params`` and, where not all rows, ``train_on``."""
    label = trial.suggest_categorical("candidate", sorted(candidates))
    settings: Json = {"candidate": candidates[label].kind, "params": space(candidates[label], trial, task, rows, label=label)}
    window = trial.suggest_categorical("train_on", list(windows)) if len(windows) > 1 else windows[0]
    return settings if window == "all" else {**settings, "train_on": window}


def _sampler(seed: int, trials: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # Grouped sampling is what makes TPE learn each candidate's parameters apart; Optuna still calls it experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Of trials that are under way it supposes the worst, so that several at once do not try the same.
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=min(max(4, trials // 4), _STARTUP), multivariate=True, group=True, constant_liar=True
        )


def _first(
    candidates: Mapping[str, Candidate], warm: Sequence[Mapping[str, Any]], windows: Sequence[str], task: str, rows: int
) -> list[Json]:
    known = [(label, s.get("params", {}), s.get("train_on", "all")) for s in warm if (label := _label_of(s, candidates))]
    likely = next((label for label, c in candidates.items() if c.kind == "lightgbm"), next(iter(candidates)))
    fresh: list[tuple[str, Json, str]] = [
        *((label, {}, windows[0]) for label in candidates),
        *((likely, {}, w) for w in windows[1:]),
    ]
    queue: list[Json] = []
    for label, params, window in [*known, *fresh]:
        start = _Given(label, params, defaults(candidates[label], task, rows))
        space(candidates[label], start, task, rows, label=label)
        first = {"candidate": label, **start.taken}
        if len(windows) > 1:
            first["train_on"] = window if window in windows else windows[0]
        if first not in queue:  # an earlier winner is often a candidate as it comes
            queue.append(first)
    return queue


def _label_of(settings: Mapping[str, Any], candidates: Mapping[str, Candidate]) -> str:
    """Find the candidate that earlier settings are of: of several of the kind, the one that fixes what they have."""
    same = [label for label, c in candidates.items() if c.kind == settings["candidate"]]
    params = settings.get("params", {})
    fitting = [label for label in same if candidates[label].params.items() <= params.items()]
    return next(iter([*fitting, *same]), "")


class _Given:
    """A trial that suggests given parameters, moved into today's ranges: yesterday's may have been others."""

    def __init__(self, label: str, given: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        self._values = {f"{label}.{name}": value for name, value in {**start, **given}.items()}
        self._start = {f"{label}.{name}": value for name, value in start.items()}
        self.taken: Json = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Take the given number."""
        del log
        value = self._values[name]
        number = float(value if isinstance(value, (int, float)) else self._start[name])
        self.taken[name] = min(max(number, low), high)
        return float(self.taken[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Take the given whole number."""
        self.taken[name] = round(self.suggest_float(name, low, high, log=log))
        return int(self.taken[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Take the given choice, or the usual one when it is gone."""
        value = self._values[name]
        self.taken[name] = value if value in choices else self._start[name]
        return self.taken[name]
