"""A model: features, target, and how it is searched, gated, released, watched and retrained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mulle.core.declare.candidates import Candidate, dummy, lightgbm, logistic, random_forest, ridge
from mulle.core.declare.features import Features
from mulle.core.declare.gates import Gate, no_worse_than_champion, p99, parity
from mulle.core.declare.names import plain_name
from mulle.core.declare.operate import Monitor, Retrain, Rollout, canary
from mulle.core.declare.select import Select
from mulle.core.declare.training import ALL, Holdout, Search, Window, holdout
from mulle.core.errors import DeclarationError

__all__ = ["METRIC", "Model", "Task"]

Task = Literal["regression", "binary", "multiclass"]

METRIC = {"regression": "mae", "binary": "log_loss", "multiclass": "log_loss"}
"""The metric that is searched for and compared by, per task; lower is better."""


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
        By time where the dataset declares time (default: the last 14 days), else a random fifth.
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

    Raises
    ------
    DeclarationError
        On an unknown task, a target that is the key or time, features or a selection that are none, a window or folds by
        time where the dataset declares none, or calibration of a regression.
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
    ) -> None:
        _refuse(name, features, target, task, select)
        linear = ridge() if task == "regression" else logistic()
        defaults = {
            "name": plain_name(name, "model"),
            "features": features,
            "target": target,
            "task": task,
            "split": split or (holdout("14d") if features.dataset.time else holdout(0.2)),
            "select": select,
            "train_on": _windows(name, train_on),
            "calibrate": calibrate,
            "search": search if search and search.candidates else _with_candidates(search, linear),
            "gates": tuple(gates) if gates is not None else (no_worse_than_champion(METRIC[task]), parity(1e-4), p99("50ms")),
            "rollout": rollout or canary(),
            "monitor": monitor or Monitor(),
            "retrain": retrain or Retrain(),
        }
        for attribute, value in defaults.items():
            object.__setattr__(self, attribute, value)
        _refuse_training(self)

    @property
    def metric(self) -> str:
        """The metric that is searched for and compared by; lower is better."""
        return METRIC[self.task]

    @property
    def hidden(self) -> tuple[str, ...]:
        """Raw columns that a request never carries: outcomes, `known_at` and the target."""
        dataset = self.features.dataset
        return tuple(dict.fromkeys((*dataset.hidden, self.target)))


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


def _windows(model: str, given: str | Window | Iterable[str | Window]) -> tuple[Window, ...]:
    several = (given,) if isinstance(given, (str, Window)) else tuple(given)
    windows = tuple(dict.fromkeys(ALL if w == "all" else w for w in several))
    wrong = [w for w in windows if not isinstance(w, Window)]
    if wrong or not windows:
        raise DeclarationError(
            f"model {model}: train_on={wrong[0] if wrong else given!r}", next='write "all", ml.window("180d"), or a list of both'
        )
    return windows  # type: ignore[return-value]


def _with_candidates(search: Search | None, linear: Candidate) -> Search:
    return replace(search or Search(), candidates=(dummy(), linear, lightgbm(), random_forest()))
