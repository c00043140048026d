"""A fleet's last step: its members are trained in chunks beside each other, then registered and released in bulk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import immediate
from mulle.core.errors import Deadline, MulleError, Refused, Unavailable
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, Json, from_json, to_json
from mulle.core.records.deployment import champion_of
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.run import OUTCOMES, GateResult, Member, Run
from mulle.kernel.bundle import read_contract
from mulle.kernel.faults import point
from mulle.lifecycle.rollout.plan import Decision, start_release
from mulle.loop.compute.work import done_file
from mulle.loop.operate import ONLY, champion, pausing
from mulle.loop.parts import Parts
from mulle.loop.rollout.route import publish_routes
from mulle.loop.training.tracked import tell_members

__all__ = ["CHUNK", "Fleet", "Task", "left_out", "settings_in_force"]

CHUNK = 25
"""Members of one task: few enough that little is lost by a kill, enough that a task's own cost does not count."""

_BULK = 500
"""Members that are recorded in one transaction."""

_MEMBER_SECONDS, _TASK_SECONDS = 120.0, 600.0


class Task(Protocol):
    """Runs one compute task of the run in a child."""

    def __call__(self, name: str, *, timeout: float | None = None, **arguments: object) -> Json:
        """Run it and give its answer."""
        ...


def left_out(run: Run, results: Json) -> str:
    """Say why a fleet's run goes on without its shared model; empty when it does not."""
    if only := run.options.get(ONLY):
        return f"only {len(only)} of its members run: the shared model stays as it is"
    return str(results.get("gate", {}).get("held_back", ""))


def settings_in_force(parts: Parts, model: Model) -> Json:
    """Give what a search would have found, for a run of some members: the settings of the shared model in force.

    Raises
    ------
    Refused
        When the fleet has none yet.
    """
    best = champion(parts, model)
    if best is None:
        raise Refused(f"{model.name} has no shared model yet, which its members are held to", next=f"`mulle run {model.name}`")
    settings = read_contract(Path(best.address)).settings
    told = f"{model.name}@{best.version}'s settings: only members run"
    return {"trials": [], "settings": {k: v for k, v in settings.items() if k not in ("seed", "data")}, "notes": [told]}


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet's members in one run.

    Attributes
    ----------
    run, model
        Of the fleet.
    serves_from : datetime
        From when its versions may serve.
    task : Task
    told : callable
        Told of progress: members done, of how many.
    replay : bool
    """

    parts: Parts
    run: Run
    model: Model
    results: Json
    serves_from: datetime
    task: Task
    told: Callable[[int, int], None]
    replay: bool = False

    def train(self) -> Json:
        """Train what is missing, then record, register and release; every part may be repeated.

        Returns
        -------
        dict
            ``members``: outcome to count; ``rejected`` when nothing came of the run.
        """
        cut = self.task("cut", chunk=CHUNK, only=self.run.options.get(ONLY))
        point("during:members:cut")
        names = [self.model.member(key).name for keys in cut["chunks"].values() for key in keys]
        champions = self._champions(names)
        self._chunks(cut["chunks"], champions)
        point("during:members:trained")
        counted: Counter[str] = Counter()
        small = [self._small(*told) for told in cut["small"]]
        for some in _bulks([*self._done(cut["chunks"]), *small]):
            counted.update(m.outcome for m in self._recorded(some))
            point("during:members:recorded")
        publish_routes(self.parts)
        point("during:members:routed")
        tell_members(self.parts, self.run)
        summary: Json = {"members": {name: counted[name] for name in OUTCOMES}}
        if why := self._nothing(counted):
            return {**summary, "rejected": why}
        return summary

    def _champions(self, names: Sequence[str]) -> dict[str, ModelVersion]:
        last = self.parts.metadata.deployments.latest(1, names)
        asked = [(name, version) for name, found in last.items() if (version := champion_of(found[-1])) is not None]
        # This run's own versions are no rivals: a run that goes on judges as it did before.
        found = self.parts.metadata.models.many(asked)
        return {name: version for (name, _), version in found.items() if version.run != self.run.id}

    def _chunks(self, chunks: Mapping[str, list[str]], champions: Mapping[str, ModelVersion]) -> None:
        """Train the chunks that have left nothing yet, as many at once as there are processes."""
        folder = self.parts.settings.home / "runs" / self.run.id
        every = sum(len(keys) for keys in chunks.values())
        missing = {name: keys for name, keys in chunks.items() if not done_file(folder, name, keys).exists()}
        done = every - sum(len(keys) for keys in missing.values())
        self.told(done, every)
        pool = ThreadPoolExecutor(max_workers=self.parts.settings.processes, thread_name_prefix="members")
        try:
            waiting: dict[Future[None], int] = {
                pool.submit(self._chunk, folder, name, keys, champions): len(keys) for name, keys in missing.items()
            }
            for future in as_completed(waiting):
                future.result()
                done += waiting[future]
                self.told(done, every)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _chunk(self, folder: Path, name: str, keys: list[str], champions: Mapping[str, ModelVersion]) -> None:
        try:
            self._members(name, keys, champions)
        except (Unavailable, Deadline) as error:
            if "code" not in error.facts and not isinstance(error, Deadline):
                raise  # compute is closed, no process died
            # One of them took the process with it; alone, it takes nobody along.
            found = [self._alone(folder, name, key, champions) for key in keys]
            _leave(done_file(folder, name, keys), found)

    def _members(self, name: str, keys: list[str], champions: Mapping[str, ModelVersion]) -> None:
        self.task(
            "members",
            timeout=_TASK_SECONDS + _MEMBER_SECONDS * len(keys),
            chunk=name,
            keys=keys,
            settings=self.results["search"]["settings"],
            champions={m: to_json(champions[m]) for m in (self.model.member(k).name for k in keys) if m in champions},
            replay=self.replay,
        )

    def _alone(self, folder: Path, name: str, key: str, champions: Mapping[str, ModelVersion]) -> Json:
        path = done_file(folder, f"{name}-alone", [key])
        if not path.exists():
            try:
                self._members(f"{name}-alone", [key], champions)
            except (Unavailable, Deadline) as error:
                if "code" not in error.facts and not isinstance(error, Deadline):
                    raise
                return self._failed(key, error)
        return dict(json.loads(path.read_text())[0])

    def _failed(self, key: str, error: MulleError) -> Json:
        name = self.model.member(key).name
        gate = GateResult(gate="trained", metric="", value=None, bound=None, verdict="fail", reason=error.detail, model=name)
        return {
            "member": to_json(Member(run=self.run.id, model=name, outcome="failed", reason=error.detail)),
            "gates": [to_json(gate)],
        }

    def _done(self, chunks: Mapping[str, list[str]]) -> Iterator[Json]:
        folder = self.parts.settings.home / "runs" / self.run.id
        for name, keys in chunks.items():
            yield from json.loads(done_file(folder, name, keys).read_text())

    def _small(self, key: str, rows: int, reason: str) -> Json:
        name = f"{self.model.name}/{key}"
        return {"member": to_json(Member(run=self.run.id, model=name, outcome="small", reason=reason, rows=rows)), "gates": []}

    def _recorded(self, found: Sequence[Json]) -> list[Member]:
        """Write what became of some members: verdicts, versions, deployments, and last the members' own records."""
        metadata = self.parts.metadata
        metadata.runs.add_gates(self.run.id, [from_json(GateResult, gate) for one in found for gate in one["gates"]])
        made = metadata.models.add_many([self._version(one) for one in found if "bundle" in one])
        numbers = {version.model: version.version for version in made}
        self._release(numbers)
        members = [from_json(Member, {**one["member"], "version": numbers.get(one["member"]["model"])}) for one in found]
        metadata.runs.add_members(members)
        return members

    def _version(self, found: Json) -> ModelVersion:
        run, bundle, name = self.run, found["bundle"], found["member"]["model"]
        return ModelVersion(
            id=derived_id(run.created_at, run.id, name),
            created_at=self.serves_from,
            causes=(Cause(type="run", id=run.id, why="the member passed its gates"),),
            model=name,
            version=0,
            run=run.id,
            bundle=bundle["hash"],
            address=bundle["address"],
            compiled=bundle["compiled"],
            parity=None if bundle["parity"] is None else from_json(Parity, bundle["parity"]),
            metrics=found["evaluation"]["metrics"],
            size_bytes=bundle["size_bytes"],
            features=tuple(bundle["features"]),
            data={name: v["version"] for name, v in self.results["publish"]["versions"].items()},
            data_cutoff=bundle["data_cutoff"],
            refit_cutoff=run.cutoff,
        )

    def _release(self, versions: Mapping[str, int]) -> None:
        """Begin each new version's rollout, but where this run began it before."""
        deployments, run = self.parts.metadata.deployments, self.run
        last = deployments.latest(1, list(versions))
        now = self.serves_from if self.replay else self.parts.clock.now()
        rollout = immediate() if run.options.get("rollout") == "immediate" else self.model.rollout
        if pausing(self.parts, self.model.name):
            return
        begun = []
        for name, version in versions.items():
            before = last[name][-1] if name in last else None
            if before is not None and (before.paused or any(cause.id == run.id for cause in before.causes)):
                continue
            causes = (Cause(type="run", id=run.id, why=f"registered as {name}@{version}"), *run.causes)
            member = self.model.member(key_of(name))
            begun.append(start_release(rollout, before, version, Decision(by="loop", causes=causes, now=now), model=member))
        deployments.add_many(begun)

    def _nothing(self, counted: Counter[str]) -> str:
        # Where the shared model has a new version, the run has made something whatever became of the members.
        why = left_out(self.run, self.results)
        if not why or counted["trained"]:
            return ""
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counted.items() if count) or "none"
        return f"{why}; members: {told}"


def _bulks(found: Sequence[Json]) -> Iterator[Sequence[Json]]:
    for start in range(0, len(found), _BULK):
        yield found[start : start + _BULK]


def _leave(path: Path, found: Sequence[Json]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(list(found)))
    temporary.replace(path)
