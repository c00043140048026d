"""A model: features, target, and how it is searched, gated, released, watched and retrained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mulle.core.declare.candidates import Candidate, dummy, lightgbm, logistic, random_forest, ridge
from mulle.core.declare.features import Features
from mulle.core.declare.fleet import Each, each, member_name, refuse_column
from mulle.core.declare.gates import Gate, NoWorseThanChampion, no_worse_than_champion, p99, parity
from mulle.core.declare.log import Log
from mulle.core.declare.monitor import Monitor
from mulle.core.declare.names import plain_name
from mulle.core.declare.retrain import Retrain
from mulle.core.declare.rollout import Rollout, canary
from mulle.core.declare.select import Select
from mulle.core.declare.training import ALL, Holdout, Search, Window, holdout
from mulle.core.errors import DeclarationError

__all__ = ["METRIC", "Model", "Task"]

Task = Literal["regression", "binary", "multiclass"]

METRIC = {"regression": "mae", "binary": "log_loss", "multiclass": "log_loss"}
"""The metric that is searched for and compared by, per task; lower is better."""

_LATEST = replace(holdout("14d"), most=0.2)

_FEWEST = 10
"""Rows that a member is compared on, at least."""
_CHEAPEST_FIRST = ("dummy", "linear", "ridge", "logistic", "lasso", "elastic_net", "naive_bayes", "lightgbm", "xgboost")
_COST = {kind: rank for rank, kind in enumerate(_CHEAPEST_FIRST)}


@dataclass(frozen=True, slots=True, init=False)
class Model:
    """A declared model. Everything after `task` has a sensible default.

    Parameters
    ----------
    name : str
    features : Features
    target : str
        An outcome column of the features' dataset.
    task : {"regression", "binary", "multiclass"}
    split : Holdout, optional
        By time where the dataset declares time (default: the last 14 days, at most a fifth of the time), else a random fifth.
    select : Select, optional
        Which features the model keeps (``ml.select``); all of them by default.
    train_on : {"all"} or Window, or several
        Which past is trained on; of several, the search chooses.
    calibrate : bool
        Correct probabilities by what validation shows, where that helps; for classes only.
    search : Search, optional
    gates : iterable of Gate, optional
    rollout : Rollout, optional
    monitor : Monitor, optional
    retrain : Retrain, optional
    each : str or Each, optional
        Make it a fleet (``ml.each``): one model per value of this raw column, each gated and released by itself, and this
        one, trained on all rows, for keys that have none.
    log : Log, optional
        Which answers are logged, without which columns, and for how long.

    Raises
    ------
    DeclarationError
        On an unknown task, a target that is the key or time, features or a selection that are none, a window or folds by
        time where the dataset declares none, calibration of a regression, or a fleet by a column that no request carries.
    """

    name: str
    features: Features
    target: str
    task: Task
    split: Holdout
    select: Select | None
    train_on: tuple[Window, ...]
    calibrate: bool
    search: Search
    gates: tuple[Gate, ...]
    rollout: Rollout
    monitor: Monitor
    retrain: Retrain
    each: Each | None
    log: Log

    def __init__(
        self,
        name: str,
        *,
        features: Features,
        target: str,
        task: Task,
        split: Holdout | None = None,
        select: Select | None = None,
        train_on: str | Window | Iterable[str | Window] = "all",
        calibrate: bool = False,
        search: Search | None = None,
        gates: Iterable[Gate] | None = None,
        rollout: Rollout | None = None,
        monitor: Monitor | None = None,
        retrain: Retrain | None = None,
        each: str | Each | None = None,
        log: Log | None = None,
    ) -> None:
        _refuse(name, features, target, task, select)
        defaults = {
            "name": plain_name(name, "model"),
            "features": features,
            "target": target,
            "task": task,
            "split": split or (_LATEST if features.dataset.time else holdout(0.2)),
            "select": select,
            "train_on": _windows(name, train_on),
            "calibrate": calibrate,
            "search": search if search and search.candidates else _with_candidates(search, task),
            "gates": tuple(gates) if gates is not None else (no_worse_than_champion(METRIC[task]), parity(1e-4), p99("50ms")),
            "rollout": rollout or canary(),
            "monitor": monitor or Monitor(),
            "retrain": retrain or Retrain(),
            "each": _each(each),
            "log": log or Log(),
        }
        for attribute, value in defaults.items():
            object.__setattr__(self, attribute, value)
        _refuse_together(self)

    def member(self, key: str, *, winner: str = "") -> Model:
        """Give a fleet's member: a model by itself, named ``MODEL/KEY``, with the same features, gates, rollout and monitor.

        It is searched with few trials of the candidates that cost little, and compared on a tenth of `at_least` rows or more.

        Parameters
        ----------
        key : str
            The value of the fleet's column, as text.
        winner : str
            The kind of candidate that won for the whole, which the member tries too.

        Raises
        ------
        DeclarationError
            When the model is no fleet, or the key cannot be in a name.
        """
        name = member_name(self.name, key)
        if self.each is None:
            raise DeclarationError(f"model {self.name} is no fleet, so '{self.name}/{key}' is nothing", next="declare each=")
        if name is None:
            raise DeclarationError(
                f"'{key}' cannot name a member of {self.name}", next="keys are at most 100 printable characters"
            )
        # Trials of a small model take less time than a process of their own would.
        cheap = sorted((c for c in self.search.candidates if c.kind in _COST), key=lambda c: _COST[c.kind])
        further = [c for c in self.search.candidates if c.kind == winner and c not in cheap]
        search = replace(
            self.search, candidates=(*cheap, *further) or self.search.candidates, trials=self.each.trials,
            parallel=1, trial_timeout=None, memory=None, prune=False,
        )  # fmt: skip
        # What is small cannot bring as many rows to be compared on as the whole.
        least = max(_FEWEST, self.each.at_least // 10)
        gates = tuple(
            replace(g, min_rows=min(g.min_rows, least)) if isinstance(g, NoWorseThanChampion) else g for g in self.gates
        )
        monitor = replace(self.monitor, min_rows=min(self.monitor.min_rows, 2 * least))
        made = copy.copy(self)
        told = {"name": name, "each": None, "search": search, "gates": gates, "monitor": monitor}
        for attribute, value in told.items():
            object.__setattr__(made, attribute, value)
        return made

    @property
    def metric(self) -> str:
        """The metric that is searched for and compared by; lower is better."""
        return METRIC[self.task]

    @property
    def hidden(self) -> tuple[str, ...]:
        """Raw columns that a request never carries: outcomes, `known_at` and the target."""
        dataset = self.features.dataset
        return tuple(dict.fromkeys((*dataset.hidden, self.target)))


def _each(given: str | Each | None) -> Each | None:
    return each(given) if isinstance(given, str) else given


def _refuse(name: str, features: Features, target: str, task: Task, select: Select | None) -> None:
    if task not in get_args(Task):
        raise DeclarationError(f"model {name}: unknown task {task!r}", next=f"choose from {', '.join(get_args(Task))}")
    if not isinstance(features, Features):
        raise DeclarationError(
            f"model {name}: features is a {type(features).__name__}", next="decorate the function with @ml.features(dataset)"
        )
    dataset = features.dataset
    if target in dataset.key or target == dataset.time:
        raise DeclarationError(
            f"model {name}: the target {target!r} is the key or time of {dataset.name}", next="name an outcome column"
        )
    if select is not None and not isinstance(select, Select):
        raise DeclarationError(f"model {name}: select is a {type(select).__name__}", next="write select=ml.select(top=10)")


def _refuse_together(model: Model) -> None:
    _refuse_training(model)
    _refuse_service(model)


def _refuse_training(model: Model) -> None:
    validation = model.search.validation
    by_time = [w.label for w in model.train_on if w.span is not None]
    by_time += [validation.kind] if validation is not None and validation.kind in ("expanding", "sliding") else []
    if by_time and model.features.dataset.time is None:
        raise DeclarationError(
            f"model {model.name}: {by_time[0]!r} is by time, and {model.features.dataset.name} declares none",
            next="declare the dataset's time, or write ml.kfold(5)",
        )
    if model.calibrate and model.task == "regression":
        raise DeclarationError(f"model {model.name}: a regression has no probabilities to calibrate", next="leave calibrate out")


def _refuse_service(model: Model) -> None:
    dataset = model.features.dataset
    if dataset.time in model.log.redact:
        raise DeclarationError(
            f"model {model.name}: the log cannot leave out {dataset.time}, a row's time", next="labels and windows need it"
        )
    if model.each is not None and model.rollout.staging:
        raise DeclarationError(
            f"model {model.name}: the members of a fleet are too many for staging", next="leave staging=True out"
        )  # fmt: skip
    if model.each is not None and model.each.column in model.log.redact:
        raise DeclarationError(
            f"model {model.name}: the log cannot leave out {model.each.column}, whose values name models in routes and records",
            next="let the source give a pseudonym, and name that column in each=",
        )
    if model.each is not None:
        refuse_column(model.name, model.each.column, dataset, model.hidden)


def _windows(model: str, given: str | Window | Iterable[str | Window]) -> tuple[Window, ...]:
    several = (given,) if isinstance(given, (str, Window)) else tuple(given)
    windows = tuple(dict.fromkeys(ALL if w == "all" else w for w in several))
    wrong = [w for w in windows if not isinstance(w, Window)]
    if wrong or not windows:
        raise DeclarationError(
            f"model {model}: train_on={wrong[0] if wrong else given!r}", next='write "all", ml.window("180d"), or a list of both'
        )
    return windows  # type: ignore[return-value]


def _with_candidates(search: Search | None, task: Task) -> Search:
    linear: Candidate = ridge() if task == "regression" else logistic()
    return replace(search or Search(), candidates=(dummy(), linear, lightgbm(), random_forest()))
