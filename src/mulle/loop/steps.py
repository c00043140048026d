"""The steps of a run: each takes the run's id and the earlier steps' results, and returns small JSON.

Steps are idempotent: parked batches, folders and records have names derived from the run, so a step that runs again
after a crash writes the same thing again. Compute happens in child processes (`loop.compute`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mulle.core.clock import duration
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.declare.rollout import immediate
from mulle.core.errors import NotFound
from mulle.core.hashing import derived_id
from mulle.core.ports.source import SourceReader
from mulle.core.records.base import Cause, Json, from_json, to_json
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.run import GateResult, Run, RunEvent, Trial
from mulle.kernel.faults import point
from mulle.lifecycle.data.stage import Staged, staged_rows
from mulle.loop.data.ingest import audit, ingest_labels, needed, publish_staged, stage_new
from mulle.loop.data.online import refresh_online
from mulle.loop.monitoring.triggers import longest_search
from mulle.loop.operate import ONLY, add_deployment, champion
from mulle.loop.parts import Parts
from mulle.loop.rollout.release import begin_release, note_unreleased
from mulle.loop.training.changes import declared
from mulle.loop.training.fleet import Fleet, left_out, settings_in_force
from mulle.loop.training.imported import OPTION, instead_of_search
from mulle.loop.training.refit import settings_kept
from mulle.loop.training.tracked import tell_run

__all__ = ["UNGATED", "Steps"]

UNGATED = "ungated"
"""A run's option, for a replay's naive policy: what the gates turn down is released all the same, with their verdicts told."""

_TASK = "mulle.bootstrap.tasks:run_task"

_EARLIER = 3
"""Runs whose best trial a search begins with, beside the champion's."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps bound to their parts.

    Attributes
    ----------
    parts : Parts
    lag : timedelta
        On a replay clock: from a run's creation until its version may serve; zero on the wall clock.
    replay : bool
        Latency gates are recorded but do not decide, and a search is bounded by trials alone.
    readers : dict
        Sources to use instead of the declared ones, by dataset.
    told : callable, optional
        Told of a fleet's run how far its members are.
    """

    parts: Parts
    lag: timedelta = timedelta(0)
    replay: bool = False
    readers: Mapping[str, SourceReader] | None = None
    told: Callable[[str, str], None] | None = None

    def table(self) -> dict[str, Callable[[str, Json], Json]]:
        """Give the steps by stage name, in order."""
        return {
            "ingest": self.ingest,
            "check": self.check,
            "publish": self.publish,
            "features": self.features,
            "search": self.search,
            "evaluate": self.evaluate,
            "bundle": self.bundle,
            "gate": self.gate,
            "register": self.register,
            "roll_out": self.roll_out,
            "members": self.members,
        }

    def ingest(self, run_id: str, results: Json) -> Json:
        """Stage what each dataset's source has to give."""
        del results
        run, model = self._run(run_id)
        # Its processes import while rows are read; and where nothing can be computed, no row is brought in for it.
        self.parts.compute()
        until = run.cutoff if self.replay else None
        staged: dict[str, Json | None] = {}
        for dataset in needed(model):
            reader = (self.readers or {}).get(dataset.name)
            batch = stage_new(
                self.parts, dataset, batch=f"{run_id}-{dataset.name}", now=run.created_at, until=until, reader=reader
            )
            staged[dataset.name] = None if batch is None else to_json(batch)
            point("during:ingest")
        return {"staged": staged}

    def check(self, run_id: str, results: Json) -> Json:
        """Audit each staged batch; references may be staged in the same run."""
        _, model = self._run(run_id)
        staged = _staged(results)
        references = {name: staged_rows(s, self.parts.lake) for name, s in staged.items()}
        checks: dict[str, Json] = {}
        for dataset in needed(model):
            if dataset.name in staged:
                checks[dataset.name] = to_json(audit(self.parts, dataset, staged[dataset.name], references))
            point("during:check")
        return {"checks": checks}

    def publish(self, run_id: str, results: Json) -> Json:
        """Publish audited batches, quarantine failed ones, and fix the versions that the run reads."""
        run, model = self._run(run_id)
        until = run.cutoff if self.replay else None
        staged: dict[str, Staged] = _staged(results)
        refused: list[str] = []
        cause = Cause(type="run", id=run_id, why=f"run of {model.name} found new rows")
        for dataset in needed(model):
            reader, first = (self.readers or {}).get(dataset.name), None
            if dataset.name in staged:
                checks = tuple(from_json(CheckResult, c) for c in results["check"]["checks"][dataset.name])
                done = publish_staged(
                    self.parts, dataset, staged[dataset.name], checks, causes=(cause,), reader=reader, until=until
                )
                # Labels that come with the very first rows are history like them.
                first = True if isinstance(done, DatasetVersion) and done.version == 1 else None
                refused += _refusal(dataset, done)
            if reader is None:
                batch = f"{run_id}-{dataset.name}-labels"
                told = ingest_labels(
                    self.parts, dataset, batch=batch, now=run.created_at, causes=(cause,), until=until, bulk=first
                )
                refused += _refusal(dataset, told)
            point("during:publish")
        if refused:
            return {"rejected": "; ".join(refused)}
        versions = {d.name: to_json(self._version(d.name)) for d in needed(model)}
        self._reads(run, {name: version["version"] for name, version in versions.items()})
        refresh_online(self.parts, self.parts.clock.now())
        point("during:publish:online")
        return {"versions": {name: {**v, "checks": []} for name, v in versions.items()}}

    def _reads(self, run: Run, data: Json) -> None:
        # Said at once: a run that makes no version of its own has read these as well.
        event = derived_id(run.created_at, run.id, "data", "publish")
        self.parts.metadata.runs.add_events(
            RunEvent(id=event, run=run.id, at=self.parts.clock.now(), kind="data", name="publish", detail={"data": data})
        )

    def features(self, run_id: str, results: Json) -> Json:
        """Join in time and run the user's function, in a child."""
        self.parts.tracking().prepare()  # to open MLflow takes seconds, and this process only waits from here to the search's end
        return self._task("features", run_id, results)

    def search(self, run_id: str, results: Json) -> Json:
        """Search candidates and parameters, in a child; record the trials. A model that is imported needs no search."""
        run, model = self._run(run_id)
        if OPTION in run.options:
            convert = lambda: self._kept("import", run_id, results, given=run.options[OPTION])  # noqa: E731
            return instead_of_search(self.parts.settings.home, run_id, run.options[OPTION], convert)
        if ONLY in run.options:
            return settings_in_force(self.parts, model)
        if kept := settings_kept(self.parts, model, run):
            return kept
        timeout = None if self.replay else longest_search(model, run).total_seconds()
        found = self._kept("search", run_id, results, timeout=timeout, warm=self._warm(model))
        self.parts.metadata.runs.add_trials([from_json(Trial, {**t, "run": run_id}) for t in found["trials"]])
        point("during:search:recorded")
        return found

    def evaluate(self, run_id: str, results: Json) -> Json:
        """Fit the winner on the training rows and measure it on the holdout, in a child."""
        # The search is over and this process only waits for children: time to tell the tracking server of its trials.
        run, _ = self._run(run_id)
        self.parts.tracking().prepare(run, self.parts.metadata.runs.trials(run_id))
        found = results["search"]
        return self._task(
            "evaluate", run_id, results, settings=found["settings"], spent=sum(t["seconds"] for t in found.get("trials", ()))
        )

    def bundle(self, run_id: str, results: Json) -> Json:
        """Refit on all rows, compile, prove parity, write the bundle, in a child."""
        if why := left_out(self._run(run_id)[0], results):
            return {"skipped": why}
        return self._task(
            "bundle", run_id, results, settings=results["search"]["settings"], metrics=results["evaluate"]["metrics"]
        )

    def gate(self, run_id: str, results: Json) -> Json:
        """Compare with the champion, in a child; judge every gate and record the verdicts."""
        run, model = self._run(run_id)
        if why := left_out(run, results):
            return {"skipped": why}
        best = champion(self.parts, model)
        answer = self._kept(
            "gate",
            run_id,
            results,
            champion=None if best is None else to_json(best),
            evaluation=results["evaluate"],
            bundle=results["bundle"],
            replay=self.replay,
        )
        gates = [from_json(GateResult, g) for g in answer["gates"]]
        self.parts.metadata.runs.add_gates(run_id, gates)
        point("during:gate:recorded")
        if not answer["accepted"] and not run.options.get(UNGATED):
            tell_run(self.parts, run, results)
            failed = "; ".join(f"{g.gate}: {g.reason}" for g in gates if g.verdict in ("fail", "not_enough_evidence"))
            # A fleet's members go on by themselves, beside the shared model that there is.
            return {**answer, "rejected" if model.each is None else "held_back": failed}
        return answer

    def register(self, run_id: str, results: Json) -> Json:
        """Give the bundle a version number, and tell MLflow; one that is away is told later."""
        run, model = self._run(run_id)
        if why := left_out(run, results):
            return {"skipped": why}
        bundle, versions = results["bundle"], results["publish"]["versions"]
        version = self.parts.metadata.models.add(
            ModelVersion(
                id=run_id,
                created_at=self._serves_from(run),
                causes=_made_by(run),
                model=model.name,
                version=0,
                run=run_id,
                bundle=bundle["hash"],
                address=bundle["address"],
                compiled=bundle["compiled"],
                parity=None if bundle["parity"] is None else from_json(Parity, bundle["parity"]),
                metrics=results["evaluate"]["metrics"],
                size_bytes=bundle["size_bytes"],
                features=tuple(bundle["features"]),
                data={name: v["version"] for name, v in versions.items()},
                data_cutoff=bundle["data_cutoff"],
                refit_cutoff=run.cutoff,
            )
        )
        point("during:register")
        tracked = tell_run(self.parts, run, results, version)
        point("during:register:tracked")
        return {"version": version.version, "tracking": tracked}

    def roll_out(self, run_id: str, results: Json) -> Json:
        """Start the declared rollout; the loop's ticks carry it on. A fleet's run has one more step."""
        run, model = self._run(run_id)
        further = {} if model.each is None else {"then": "members"}
        if why := left_out(run, results):
            return {"skipped": why, **further}
        version = results["register"]["version"]
        now = self._serves_from(run) if self.replay else self.parts.clock.now()
        causes = (Cause(type="run", id=run.id, why=f"registered as {model.name}@{version}"), *run.causes)
        rollout = immediate() if run.options.get("rollout") == "immediate" else model.rollout
        deployment = begin_release(self.parts, model, version, rollout=rollout, causes=causes, now=now)
        if isinstance(deployment, str):
            note_unreleased(self.parts, run_id, deployment)
            return {"skipped": deployment, **further}
        # One that is known may have been recorded by a process that died before routes and aliases followed.
        point("during:roll_out")
        add_deployment(self.parts, deployment)
        return {"deployment": deployment.id, "action": deployment.action, **further}

    def members(self, run_id: str, results: Json) -> Json:
        """Train, judge, register and release a fleet's members, each by itself."""
        run, model = self._run(run_id)

        def task(name: str, *, timeout: float | None = None, **arguments: object) -> Json:
            return self._call(name, self._arguments(run_id, results, None, arguments), timeout)

        def told(done: int, every: int) -> None:
            if self.told is not None:
                self.told(run_id, f"{done:,} of {every:,}")

        serves = self._serves_from(run) if self.replay else run.created_at
        return Fleet(self.parts, run, model, results, serves, task, told, self.replay).train()

    def _serves_from(self, run: Run) -> datetime:
        # A replay's first model is there when the replay begins; later ones take their declared time.
        return run.created_at if run.options.get("first") else run.created_at + self.lag

    def _kept(self, name: str, run_id: str, results: Json, *, timeout: float | None = None, **arguments: object) -> Json:
        # What is recorded and what the run goes on with must be one answer: clocks decide when a search ends, so a step
        # that runs again would find other trials than those that are recorded.
        path = self.parts.settings.home / "runs" / run_id / f"{name}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        answer = self._task(name, run_id, results, timeout=timeout, **arguments)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(answer))
        temporary.replace(path)
        return answer

    def _task(self, name: str, run_id: str, results: Json, *, timeout: float | None = None, **arguments: object) -> Json:
        # The search bounds itself; the process is killed only when it overstays by far.
        limit = None if timeout is None else 3 * timeout + 600
        return self._call(name, self._arguments(run_id, results, timeout, arguments), limit)

    def _arguments(self, run_id: str, results: Json, timeout: float | None, more: Mapping[str, object]) -> Json:
        run, model = self._run(run_id)
        return {
            "run": run.id,
            "model": model.name,
            "code": run.code,
            "seed": run.seed,
            "cutoff": to_json(run.cutoff),
            # A replay's many models are there to be compared: only the first is looked into.
            "options": {"inspect": not self.replay or bool(run.options.get("first")), **run.options},
            "versions": results["publish"]["versions"],
            "search_timeout": timeout,
            **more,
        }

    def _call(self, name: str, arguments: Json, timeout: float | None) -> Json:
        settings = {k: str(v) for k, v in to_json(self.parts.settings).items()}
        asked = {"name": name, "settings": settings, "arguments": arguments}
        # The user's own functions run there: one that never ends must not hold the model up for ever.
        timeout = timeout or duration(self.parts.settings.stage_limit).total_seconds()
        answer = self.parts.compute().call(_TASK, asked, timeout=timeout, owner=str(arguments["run"]))
        point(f"during:{name}")
        return answer

    def _run(self, run_id: str) -> tuple[Run, Model]:
        run = self.parts.metadata.runs.get(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}", next="see `mulle runs ls`")
        return run, declared(self.parts.project, self.parts.settings.home, run)

    def _version(self, dataset: str) -> DatasetVersion:
        version = self.parts.metadata.datasets.get(dataset)
        if version is None:
            raise NotFound(
                f"dataset {dataset} has no published version and its source gave no rows",
                next="look at the source's path in project.py",
                dataset=dataset,
            )
        return version

    def _warm(self, model: Model) -> list[Json]:
        best = champion(self.parts, model)
        earlier = [run.id for run in self.parts.metadata.runs.list(model.name, _EARLIER)]
        warm: list[Json] = []
        for run in dict.fromkeys([best.run, *earlier] if best else earlier):
            scored = [t for t in self.parts.metadata.runs.trials(run) if t.score is not None and t.state == "done"]
            for trial in sorted(scored, key=lambda t: t.score or 0.0)[:1]:
                settings = {"candidate": trial.candidate, "params": trial.params, "train_on": trial.train_on}
                warm += [settings] if settings not in warm else []
        return warm


def _made_by(run: Run) -> tuple[Cause, ...]:
    if given := run.options.get(OPTION):
        return (
            Cause(type="import", id=given["from"], why="a version that MLflow had already passed the gates"),
            Cause(type="run", id=run.id, why="the run that judged it"),
        )
    return (Cause(type="run", id=run.id, why="the run's winner passed its gates"),)


def _staged(results: Json) -> dict[str, Staged]:
    return {name: from_json(Staged, s) for name, s in results["ingest"]["staged"].items() if s is not None}


def _refusal(dataset: Dataset, done: DatasetVersion | Quarantine | None) -> list[str]:
    if not isinstance(done, Quarantine):
        return []
    failed = ", ".join(f"{c.name} failed on {c.failed} rows" for c in done.checks if c.verdict == "fail")
    return [f"{dataset.name}: batch quarantined, {failed}"]
