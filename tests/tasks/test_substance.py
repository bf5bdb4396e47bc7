"""No two splits share a problem in substance: of every task and environment, whatever its key says.

What a problem is in substance is written down here a second time. Of a new task it is what its prompts say.
"""

import functools
import itertools
import json

import pytest
from support.shipped import SCALES, TASKS, shipped

from vlmreason.assembly import catalog
from vlmreason.envs.base import Env
from vlmreason.envs.cards.blackjack import BlackjackState
from vlmreason.envs.cards.general_points import GeneralPoints, GeneralPointsState
from vlmreason.envs.cards.points import PointsState
from vlmreason.envs.cards.points24 import Points24
from vlmreason.envs.number_line import NumberLineState
from vlmreason.envs.worlds.virl import VIRLState
from vlmreason.streams import SPLITS
from vlmreason.tasks.analogies.visual_analogy import AnalogyState
from vlmreason.tasks.grids.grid_navigation import GridState
from vlmreason.tasks.tables.base import TableState

ENVS = tuple(name for name in catalog.groups()["env"] if name != "alfworld")  # it plays games of the user's
UNDIVIDED = {"number_line", "ez_points"}
NUM = 150


def counts(cards, rule):
    """What cards count by a rule, in any order."""
    return tuple(sorted(min(rank, 10) if rule == "ten" else rank for rank, _ in cards))


@functools.singledispatch
def substance(state, task):
    """All that is asked, in words: what a stranger's task is at least."""
    return task.prompt(state, "text")


@substance.register
def _(state: TableState, task):
    return state.values, state.path


@substance.register
def _(state: GridState, task):
    objects, obstacles = (sorted(cell for _, cell in named) for named in (state.objects, state.obstacles))
    return state.rows, state.cols, state.start, state.destination, objects, obstacles


@substance.register
def _(state: AnalogyState, task):
    return state.examples, state.query


@substance.register(PointsState)
@substance.register(GeneralPointsState)
def _(state, task):
    return tuple(task.values(state))


@substance.register
def _(state: BlackjackState, task):
    return tuple(min(rank, 10) for rank, _ in state.deck)


@substance.register
def _(state: NumberLineState, task):
    return state.target, state.current


@substance.register
def _(state: VIRLState, task):
    """The way: which turns, after how many steps."""
    ends, heading, way = state.route.milestones, state.route.heading, []
    for end in ends:
        turned = (end.heading - heading) % 360
        way.append((turned, max(1, min(task.sizes.straight, end.distance // 20))))
        heading = end.heading
    return tuple(way)


def first_states(task, level, split, num):
    for index in range(num):
        yield task.start(level, split, index) if isinstance(task, Env) else task.sample(level, split, index).state


def found(task, split, num=NUM):
    """Every level's problems in substance: what another level trains on is not tested on this one either."""
    states = itertools.chain.from_iterable(first_states(task, level, split, num) for level in task.levels)
    return {repr(substance(state, task)) for state in states}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*TASKS, *ENVS])
def test_splits_share_no_problem_in_substance(name, scale):
    task = shipped(name, scale)
    kinds = [found(task, split, NUM // 5 if scale == "paper" else NUM) for split in SPLITS]
    shared = [one & other for one, other in itertools.combinations(kinds, 2)]
    assert bool(task.undivided) == (name in UNDIVIDED)
    assert all(shared) if name in UNDIVIDED else not any(shared)


@pytest.mark.parametrize("name", ["general_points", "general_points_l", "points24"])
def test_values_of_test_deals_are_in_training_by_no_rule(name):
    """Each deal by both rules against all of training by both rules: by ranks 39 % of test deals were known."""
    rules = ("ten", "ranks")
    task = shipped(name)
    dealt = {split: set() for split in SPLITS}
    for split in SPLITS:
        for level, rule in itertools.product(task.levels, rules):
            for state in first_states(task, level, split, 500):
                dealt[split].add(counts(state.cards, rule))
    assert not dealt["train"] & dealt["test"] and not dealt["train"] & dealt["validation"]
    assert not dealt["validation"] & dealt["test"] and min(map(len, dealt.values())) > 20


def test_deals_that_differ_by_ranks_alone_are_in_one_split():
    env = shipped("general_points")
    assert isinstance(env, GeneralPoints)
    keys = {
        json.dumps(env.key(GeneralPointsState(((10, "spades"), (5, "clubs"), (face, "spades")), 12, rule)))
        for face, rule in itertools.product((10, 11, 12, 13), ("ten", "ranks"))
    }
    assert len(keys) == 1


def test_versions_are_raised_with_the_split():
    assert (GeneralPoints.version, Points24.version, shipped("ez_points").version) == (2, 2, 1)
    assert shipped("virl").version == 2
