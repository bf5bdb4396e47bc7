"""The environment that docs/rl.md shows is whole: it is played here as it stands there."""

import random
import re
import sys
import types
from pathlib import Path

import yaml
from gymnasium.utils.env_checker import check_env

from vlmreason.envs.episodes import Episodes
from vlmreason.envs.gym import GymEnv
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

TEXT = (Path(__file__).parents[2] / "docs" / "rl.md").read_text()


def test_the_environment_of_the_documentation_plays(monkeypatch):
    _, code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)  # the first one plays what there is
    [config] = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
    module_name, _, kind = config["_target_"].rpartition(".")
    module = types.ModuleType(module_name)
    monkeypatch.setitem(sys.modules, module_name, module)
    exec(compile(code, "docs/rl.md", "exec"), vars(module))  # the project's own documentation
    made = getattr(module, kind)
    for scale in ("nano", "paper"):
        env = made(structure(made.sizes_type, config[scale], scale), cot=config["cot"], penalty=config["penalty"])
        assert env.name == config["name"]
        check_env(GymEnv(env), skip_render_check=True)
        first = env.start("standard", "test", 3)
        assert env.state_from_json(state_to_json(first)) == first
        assert Episodes(env).score(first, Episodes(env).answer(first)).correct
        assert not Episodes(env).score(first, '["nothing"]').correct
        assert env.turn(first, "nothing", random.Random(0)).action in env.actions(first)
