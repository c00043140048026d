"""How a release stands, in words: what scores beside the champion, what waits for a person, is paused, or is in staging."""

from __future__ import annotations

from mulle.core.records.base import Json
from mulle.core.records.deployment import STAGING, Deployment, challenger_of, champion_of, current, former_of
from mulle.loop.parts import Parts
from mulle.loop.rollout.canaries import noted
from mulle.loop.views.chain import paused_view

__all__ = ["standing", "what_serves"]

_NO = ("fail", "not_enough_evidence")


def standing(parts: Parts, model: str, in_force: Deployment | None) -> tuple[Json, list[str]]:
    """Tell of a model's release.

    Returns
    -------
    dict
        ``paused`` (``by at why`` or null), ``waits`` (for approval, since when), ``watched`` (the former champion, or null)
        and ``staging`` (the version there, or null).
    list of str
        The same in words, where there is something to say.
    """
    paused, challenger, former = paused_view(parts, model), challenger_of(in_force), former_of(in_force)
    staged = champion_of(current(parts.metadata.deployments.of(model, STAGING), parts.clock.now()))
    notes = noted(parts.metadata.deployments.of(model)) if (challenger or former) is not None else {}
    held = "; ".join(cause.why for cause in notes["hold"].causes) if "hold" in notes else ""
    waits = "await" in notes
    said = []
    if challenger is not None and challenger.mode == "shadow":
        said.append(f"version {challenger.version} scores unseen beside it")
    if waits:
        said.append(f"the new version waits for approval: `mulle promote {model}`")
    elif held and challenger is not None:
        said.append(f"its release is held ({held}): `mulle promote {model}` or `mulle rollback {model}` ends it")
    if former is not None:
        said.append(f"it is watched beside version {former}" + (f", and stays for now ({held})" if held else ""))
    if staged is not None and staged != champion_of(in_force) and (challenger is None or staged != challenger.version):
        said.append(f"{STAGING} has version {staged}{_in_staging(parts, model)}")
    if paused is not None:
        said.append(f"its automation is paused by {paused['by']} ({paused['why']}): `mulle resume {model}`")
    return {"paused": paused, "waits": waits, "watched": former, STAGING: staged}, said


def what_serves(parts: Parts, run: Json) -> str:
    """Say which version serves a model in production now that a run has ended, and why it is not the run's where it is another.

    Parameters
    ----------
    run : dict
        As `run_view` gives it.
    """
    model, version = run["model"], run["model_version"]
    in_force = current(parts.metadata.deployments.of(model), parts.clock.now())
    champion = champion_of(in_force)
    if version is not None and champion == version:
        return f"{model} {version} serves production"
    stays = f"nothing of {model} serves production yet" if champion is None else f"{model} {champion} goes on serving production"
    return f"{stays}: {_why_not(parts, run, in_force)}"


def _why_not(parts: Parts, run: Json, in_force: Deployment | None) -> str:
    version, challenger = run["model_version"], challenger_of(in_force)
    if version is None:
        refused = [f"gate {g['name']} refused ({g['reason']})" for g in run["gates"] if g["verdict"] in _NO]
        left = "the run left its shared model as it is" if run["state"] == "succeeded" else f"the run ended as {run['state']}"
        return "; ".join(refused) or run["reason"] or left
    if challenger is not None and challenger.version == version:
        beside = f"takes {challenger.share:.0%} as a canary" if challenger.mode == "canary" else "scores unseen beside it"
        return f"{version} {beside}"
    if champion_of(current(parts.metadata.deployments.of(run["model"], STAGING), parts.clock.now())) == version:
        return f"{version} is in {STAGING}"
    return run["release"] or f"{version} is not released: `mulle deploy {run['model']}@{version}` releases it by hand"


def _in_staging(parts: Parts, model: str) -> str:
    last = parts.metadata.deployments.of(model, STAGING)[-1]
    if last.action == "await":
        return f", which passed there and waits for approval: `mulle promote {model}`"
    if last.action == "refuse":
        why = "; ".join(cause.why for cause in last.causes)
        return f", and it is not released: {why}; `mulle promote {model}` releases it all the same"
    return ""
