"""`mulle up` killed with SIGKILL at random moments, in whole or in part, while it serves and trains: ``make chaos ROUNDS=50``."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from chaos_home import add_trips, make_home
from uphome import Up, until

ROUNDS = int(os.environ.get("ROUNDS", "12"))
VICTIMS = ("engine", "server", "worker")


def test_nothing_is_lost_or_doubled_whoever_is_killed_and_when(tmp_path: Path) -> None:
    home = make_home(tmp_path / "project")
    assert home.live(start=True).state[-1] == "succeeded"
    home.close()
    up = Up(home.folder)
    runs: list[str] = []
    try:
        up.start()
        with up.traffic():
            for number in range(ROUNDS):
                chance, victim = random.Random(number), VICTIMS[number % len(VICTIMS)]
                if not runs or up.state(runs[-1]) in ("succeeded", "rejected", "failed"):
                    add_trips(home.folder, 400 + 20 * number, 20)
                    runs.append(up.run())
                if victim == "worker":
                    until(lambda: bool(up.pids("worker")), "something computes")
                time.sleep(chance.uniform(0, 2))
                for pid in up.pids(victim):
                    up.kill(pid)
                if victim == "engine":
                    up.start()
            states = [up.ended(run) for run in runs]
            until(up.answers, "it answers after all that")
        last = up.run()
        assert up.ended(last) == "succeeded", "the loop goes on"
        before = len(up.acknowledged)
        assert up.ask()
        assert len(up.acknowledged) == before + 2 > 50
        up.stop()
        up.holds_all()
        assert "succeeded" in states
        assert not [line for line in up.log.splitlines() if "Traceback" in line and "doubled" in line]
    finally:
        up.end()
