"""A policy that plays ALFWorld: the state of a run holds games, never the engines on which they are played."""

import json
import os
import signal

import pytest
from support.acting import reinforced_run
from support.alfworld_games import MISSING, WHY, write_games
from support.tiny import outcome

from vlmreason.envs.worlds.alfworld import ALFWorld, ALFWorldSizes
from vlmreason.training.engine.keeper import RunKeeper
from vlmreason.training.engine.runner import Stopped

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=WHY)]
SIZES = ALFWorldSizes(turns=5, picture=(144, 144), font=8)


def test_a_policy_trains_stops_and_goes_on(tmp_path, monkeypatch):
    """The same figures and weights as without the stop; a run that goes on has no engine that stands anywhere."""
    games = write_games(tmp_path / "games", num=1)

    def run(folder):
        env = ALFWorld(SIZES, data=str(games))
        return reinforced_run(folder, "ppo", env, num_examples=4, updates=2)

    def write(self, metrics, timing):
        before(self, metrics, timing)
        if self.num_lines == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run(tmp_path / "whole")
    before = RunKeeper._write
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped")
    run(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["expert", "ppo", "ppo"]
    assert all("reward_goal" in line and "reward_inadmissible" in line for line in lines[1:])
