"""Configurations of `vlmreason train` composed from the YAML files directly, in a millisecond each.

Hydra takes a fifth of a second for one, and a study has hundreds. The rules that `conf/` and the experiments use are
few: defaults lists, choices by group or by package, added ones, values, references. Whatever else a file or a setting
says is left to Hydra, and so is a mistake, which it reports; a test compares the two for the runs of every experiment.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlmreason.assembly import catalog

_REFERENCE = re.compile(r"\$\{(?:([A-Za-z_][\w.]*)|oc\.select:([A-Za-z_][\w.]*),[^{}$]*)\}")
"""A value that stands elsewhere; or one with what else it is where that is not there, which then is Hydra's to read."""
_UNREAD = re.compile(r"# *@package|\s*- (optional |[^#]*:\s*[^#\s]*\$\{)")
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class NotReadHereError(ValueError):
    """Raised for what is Hydra's to read or to refuse."""


def choices_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that choose a file of a group; the others are values."""
    groups = catalog.groups()
    return {key: value for key, value in settings.items() if key.lstrip("+~").partition("@")[0] in groups}


def tree(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `vlmreason train` with these choices, references unresolved. Raises NotReadHereError."""
    if unread := _unread_file():
        raise NotReadHereError(unread)
    own = {default.group for default in catalog.defaults("train")}
    for key, choice in choices.items():
        group, _, package = key.lstrip("+").partition("@")
        is_known = choice in catalog.groups().get(group, ()) or (choice is None and group == "env")
        is_placed = _PACKAGE.fullmatch(package) if "@" in key else group in own and not key.startswith("+")
        if not (is_known and is_placed):
            raise NotReadHereError(key)
    found, left = catalog.chosen_tree("train", {k: choice for k, choice in choices.items() if not k.startswith("+")})
    if left:
        raise NotReadHereError(left[0])
    for key, choice in choices.items():
        if key.startswith("+"):
            group, _, package = key[1:].partition("@")
            catalog.insert(found, f"{group}/{choice}", package.split("."), {})
    return found


@functools.cache
def _unread_file() -> str | None:
    """Name a file of a group that says what is not read here: a package, a choice that may be absent or is computed."""
    for group, choices in catalog.groups().items():
        for choice in choices:
            if any(_UNREAD.match(line) for line in catalog.file_lines(f"{group}/{choice}")):
                return f"{group}/{choice}"
    return None


def resolved(unresolved: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree with these values in it and every reference replaced; shares nothing. Raises NotReadHereError."""
    root: dict[str, Any] = _copy(unresolved)
    for key, value in values.items():
        *path, _ = key.removeprefix("+").split(".")
        _set(root, key, value, key.startswith("+") or _is_open(unresolved, path))
    found = _replaced(root, root)
    assert isinstance(found, dict)
    return found


def _is_open(node: Any, path: Sequence[str]) -> bool:
    """Whether the files leave the mapping at this place empty, for keys of the user's."""
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping) and not node


def _set(root: dict[str, Any], key: str, value: Any, is_new: bool) -> None:
    """Set a value that is there, or one that may be new."""
    *path, leaf = key.removeprefix("+").split(".")
    node = root
    for part in path:
        if part not in node and is_new:
            node[part] = {}
        node = node.get(part)  # type: ignore[assignment]
        if not isinstance(node, dict):
            raise NotReadHereError(key)
    kept = isinstance(node.get(leaf), dict) and value is not None
    if (leaf not in node and not is_new) or kept or not _is_plain(value):
        raise NotReadHereError(key)
    node[leaf] = list(value) if isinstance(value, (list, tuple)) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return "$" not in value and value != "???"
    return value is None or isinstance(value, (bool, int, float))


def _copy(value: Any) -> Any:
    return {key: _copy(below) for key, below in value.items()} if isinstance(value, Mapping) else value


def _replaced(value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(below, root, depth) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(one, root, depth) for one in value]
    if not isinstance(value, str) or ("${" not in value and value != "???"):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _replaced(_at(root, whole[1] or whole[2]), root, depth + 1)
    text = _REFERENCE.sub(lambda found: _word(_at(root, found[1] or found[2])), value)
    if text == value or depth > catalog.MAX_DEPTH:
        raise NotReadHereError(value)
    return _replaced(text, root, depth + 1)


def _at(root: Mapping[str, Any], path: str) -> Any:
    node: Any = root
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise NotReadHereError(path)
        node = node[part]
    return node


def _word(value: Any) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise NotReadHereError(repr(value))
    return str(value)
