"""A project: the declarations one ``project.py`` makes, collected by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mulle.core.declare.batch import Batch
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.features import Features
from mulle.core.declare.fleet import fleet_of, key_of
from mulle.core.declare.model import Model
from mulle.core.errors import DeclarationError, NotFound

__all__ = ["Project", "collect"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project file declares.

    Attributes
    ----------
    folder : Path
        Where the file lies; relative source paths start here.
    code : str
        Hash of the project's source.
    datasets, features, models : dict
        By name; datasets that only joins name are found too.
    batches : tuple of Batch
        Scheduled jobs.
    """

    folder: Path
    code: str
    datasets: Mapping[str, Dataset]
    features: Mapping[str, Features]
    models: Mapping[str, Model]
    batches: tuple[Batch, ...] = ()

    def model(self, name: str) -> Model:
        """Return a declared model, or the member of a declared fleet by its name, ``MODEL/KEY``.

        Raises
        ------
        NotFound
            Naming the models that are declared.
        """
        fleet = self.models.get(fleet_of(name))
        if name not in self.models and fleet is not None and fleet.each is not None and key_of(name):
            return fleet.member(key_of(name))
        if name not in self.models:
            raise NotFound(
                f"no model '{name}' in {self.folder}", next=f"declared: {', '.join(self.models) or 'none'}", model=name
            )
        return self.models[name]

    def dataset(self, name: str) -> Dataset:
        """Return a declared dataset.

        Raises
        ------
        NotFound
            Naming the datasets that are declared.
        """
        if name not in self.datasets:
            raise NotFound(
                f"no dataset '{name}' in {self.folder}", next=f"declared: {', '.join(self.datasets) or 'none'}", dataset=name
            )
        return self.datasets[name]


def collect(namespace: Mapping[str, object], folder: Path, code: str) -> Project:
    """Collect the declarations in a module's namespace.

    Parameters
    ----------
    namespace : mapping
        The executed module's globals.
    folder : Path
    code : str
        Hash of the source.

    Returns
    -------
    Project

    Raises
    ------
    DeclarationError
        When two different declarations of one kind share a name, or a model waits for one that is not there, or for itself.
    """
    datasets: dict[str, Dataset] = {}
    features: dict[str, Features] = {}
    models: dict[str, Model] = {}
    for value in namespace.values():
        if isinstance(value, Dataset):
            _add(datasets, value.name, value, "datasets")
        elif isinstance(value, Features):
            _add_features(features, datasets, value)
        elif isinstance(value, Model):
            _add(models, value.name, value, "models")
            _add_features(features, datasets, value.features)
    _refuse_circles(models)
    batches = tuple(dict.fromkeys(value for value in namespace.values() if isinstance(value, Batch)))
    return Project(folder=folder, code=code, datasets=datasets, features=features, models=models, batches=batches)


def _refuse_circles(models: Mapping[str, Model]) -> None:
    """Refuse `Retrain(after=...)` that would have models cause each other's runs for ever."""
    for name, model in models.items():
        for unknown in (n for n in model.retrain.after if n not in models):
            raise DeclarationError(f"model {name} is trained after '{unknown}', which is not declared", next="mend the name")
        trails: list[tuple[str, ...]] = [(name, upstream) for upstream in model.retrain.after]
        while trails:
            trail = trails.pop()
            if trail[-1] == name:
                raise DeclarationError(f"models wait for each other: {' after '.join(trail)}", next="take one `after` out")
            if trail[-1] not in trail[:-1]:
                trails += [(*trail, upstream) for upstream in models[trail[-1]].retrain.after if upstream in models]


def _add_features(features: dict[str, Features], datasets: dict[str, Dataset], value: Features) -> None:
    _add(features, value.name, value, "features")
    _add(datasets, value.dataset.name, value.dataset, "datasets")
    for _, join in value.joins:
        _add(datasets, join.dataset.name, join.dataset, "datasets")


def _add(found: dict[str, T], name: str, value: T, what: str) -> None:
    if found.get(name, value) is not value:
        raise DeclarationError(f"two {what} are named '{name}'", next="give each a name of its own")
    found[name] = value
