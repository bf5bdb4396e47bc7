"""Configurations composed as commands get them, without running a command."""

import copy
import functools
from typing import Any

from hydra import compose, initialize_config_dir

from vlmreason import places
from vlmreason.assembly import catalog
from vlmreason.assembly.compose import resolve

GIVEN = {
    "generate": ["out=x"],
    "score": ["problems=x", "predictions=x"],
    "evaluate": ["run=x"],
    "export": ["run=x", "out=x"],
    "analyze": ["run=x", "what=failures"],
    "show": ["run=x"],
    "compare": ["run=x,y"],
    "job": ["config=x"],
    "figure": ["experiment=s2h/fig5"],
    "collect": ["experiment=s2h/fig5"],
}
"""What a command must be given."""


def compose_plain(command: str, *overrides: str) -> dict[str, Any]:
    """The configuration that a command gets, composed once per process of tests."""
    return copy.deepcopy(_composed(command, overrides))


@functools.cache
def _composed(command: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    words = catalog.as_settings(command, [*GIVEN.get(command, []), *overrides])
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        cfg = compose(catalog.commands()[command], words)
    return resolve(cfg, words)
