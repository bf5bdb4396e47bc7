"""A user's mistake as one sentence that names the nearest valid choice, and the exit code that goes with it."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from vlmreason.assembly import catalog
from vlmreason.structure import nearest, one_line

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--info", "-i"}
_CFG_KINDS = ("job", "hydra", "all")


def report(error: BaseException, before: str = "") -> int:
    """Print what went wrong on stderr, in one sentence where it is the user's to mend; return the exit code.

    Anything else, and everything with VLMREASON_DEBUG=1, is printed with its traceback.
    """
    if os.environ.get("VLMREASON_DEBUG") == "1":
        traceback.print_exception(error)
    found = _sentence(error)
    if found is None:
        if os.environ.get("VLMREASON_DEBUG") != "1":
            traceback.print_exception(error)
        return FAILED
    code, text = found
    clear = "\033[K" if sys.stderr.isatty() else ""  # a line that says how far something is
    print(f"{clear}vlmreason: {before}{text}", file=sys.stderr)
    return code


def sentence(error: BaseException) -> str:
    """Return what went wrong in one line, for a record; the traceback of anything unexpected is printed."""
    found = _sentence(error)
    if found is None:
        return one_line(f"{type(error).__name__}: {error}")
    return found[1]


def _sentence(error: BaseException) -> tuple[int, str] | None:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, one_line(str(error)) or "interrupted"
    if _disk_is_full(error):
        name = getattr(error, "filename", None)
        place = f" (writing {name})" if name else ""
        return FAILED, one_line(f"the disk is full{place}; make room and run the same command again")
    if isinstance(error, ValueError):
        return MISTAKE, one_line(str(error))
    if isinstance(error, RuntimeError) and 'Could not detect "srun"' in str(error):
        return MISTAKE, "hydra/launcher=submitit_slurm: there is no SLURM on this machine (srun is missing)"
    if isinstance(error, OSError) and error.strerror:
        return MISTAKE, one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return None


def _disk_is_full(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if not isinstance(error, ValueError) and "No space left on device" in str(error):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


RENAMED = {"algorithm=cnn_ppo": "model=cnn algorithm=ppo_small"}
"""Words that were understood once, and those that stand for them now."""


def check_words(command: str, words: list[str]) -> None:
    """Return options and the form of settings, before Hydra sees them. Raises ValueError."""
    for word in words:
        if word in RENAMED:
            raise ValueError(f"{word}: is written {RENAMED[word]} now")
    known = {*catalog.FLAGS, *catalog.SHORT_FLAGS}
    actions = catalog.actions(command)
    if actions and words and "=" not in words[0] and not words[0].startswith(("-", "~")):
        if words[0] not in actions:
            hint = nearest(words[0], actions)
            raise ValueError(f"{command} {words[0]}: no such action; there are {', '.join(actions)}{hint}")
        words = words[1:]
    value_of = None
    for word in words:
        if value_of is not None and not word.startswith("-") and "=" not in word:
            if value_of in ("--cfg", "-c") and word not in _CFG_KINDS:
                raise ValueError(f"--cfg {word}: allowed are {', '.join(_CFG_KINDS)}{nearest(word, _CFG_KINDS)}")
            value_of = None
            continue
        if value_of in ("--cfg", "-c"):
            raise ValueError(f"--cfg: what to show is missing; allowed are {', '.join(_CFG_KINDS)}")
        value_of = None
        if word.startswith("-"):
            flag = word.partition("=")[0]
            if flag not in known:
                raise ValueError(f"{word}: {_about_flag(command, word, known)}")
            value_of = flag if flag in FLAGS_WITH_VALUE and "=" not in word else None
        elif re.match(r"set=[^\['\"]", word) and "set" in _names(command, {}):
            raise ValueError(f"{word}: a list is expected, set='[{word[4:]}]'")
        elif word.lstrip("+~").partition("=")[0].partition(".")[0] in catalog.hidden(catalog.commands()[command]):
            raise ValueError(_about_setting(command, word.lstrip("+~"), {}))
        elif "=" not in word and not word.startswith("~"):
            hint = nearest(word, [*catalog.FLAGS, *_names(command, {})])
            raise ValueError(f"{word}: settings are written key=value{hint}")
    if value_of in ("--cfg", "-c"):
        raise ValueError(f"--cfg: what to show is missing; allowed are {', '.join(_CFG_KINDS)}")


def _about_flag(command: str, word: str, known: Iterable[str]) -> str:
    key = word.lstrip("-").partition("=")[0].replace("-", "_")
    names = _names(command, {})
    if key in names:
        return f"settings are written without dashes, {key}=..."
    if key in {name.rpartition(".")[2] for name in names}:
        return f"settings are written without dashes{_near_setting(key, names)}"
    return f"no such option; there are {', '.join(catalog.FLAGS)}{nearest(word, known)}"


def explain(command: str, words: list[str], error: BaseException) -> ValueError:
    """Say why Hydra refused these words. Falls back to the error's own first words."""
    text = _about_error(error)
    if ambiguous := re.search(r"Ambiguous value for argument '(\S+)'", text):
        key, _, values = ambiguous.group(1).partition("=")
        return ValueError(
            f"{key}={values}: a run for each value needs -m; one list of them is written {key}=[{values}]"
        )
    if missing := re.search(r"Could not find 'hydra/launcher/(\w+)'", text):
        return ValueError(_about_launcher(missing.group(1)))
    choices = {}
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    for word in settings:
        key, _, value = word.partition("=")
        choices[key.lstrip("+").partition("@")[0]] = value
    try:
        for word in settings:
            sentence = _about_setting(command, word, choices)
            if sentence:
                return ValueError(sentence)
    except ValueError as own:
        return own
    return ValueError(text)


def _about_launcher(name: str) -> str:
    from hydra.core.config_store import ConfigStore

    there = sorted(one.removesuffix(".yaml") for one in ConfigStore.instance().list("hydra/launcher"))
    comes_with = '; it comes with pip install "vlmreason[slurm]"' if name.startswith("submitit") else ""
    return (
        f"hydra/launcher={name}: no such launcher is installed; there are {', '.join(there)}"
        f"{nearest(name, there)}{comes_with}"
    )


def _about_setting(command: str, word: str, choices: dict[str, str]) -> str | None:
    key, _, value = word.partition("=")
    added = key.startswith("+")
    name, _, _ = key.lstrip("+~").partition("@")
    if name.startswith("hydra"):
        return None
    options = catalog.groups().get(name)
    in_use = {default.group for default in catalog.defaults(catalog.commands()[command])}
    if options and (name in in_use or added or "@" in key):
        for choice in _listed(value):
            if choice not in options:
                if name == "model" and "/" in choice:
                    key = "checkpoint" if os.path.isdir(choice) else "id"
                    return f"model={choice}: is written model=hf model.{key}={choice}"
                return f"{name}={choice}: no such choice; there are {', '.join(options)}{nearest(choice, options)}"
        return None
    names = _names(command, choices)
    if added or name in names:
        return None
    group = name.partition(".")[0]
    unchosen = {default.group for default in catalog.defaults(catalog.commands()[command]) if not default.choice}
    if group in unchosen and group not in choices and "." in name:
        return f"{name}: the {group} must be chosen too ({group}=...); there are {', '.join(catalog.groups()[group])}"
    return f"{name}: vlmreason {command} has no such setting{_near_setting(name, names)}"


def _near_setting(name: str, names: list[str]) -> str:
    same_leaf = [known for known in names if known.rpartition(".")[2] == name.rpartition(".")[2]]
    if len(same_leaf) == 1 or (same_leaf and "." not in name):
        return f" (did you mean {' or '.join(map(repr, same_leaf[:3]))}?)"
    group, *below = name.split(".")
    scales = catalog.groups()["scale"]
    of_group = [re.sub(rf"^(\w+)\.({'|'.join(scales)})\.", r"\1.", known) for known in same_leaf]
    of_group = [known for known in dict.fromkeys(of_group) if known.startswith(f"{group}.")]
    if below and len(of_group) == 1:
        return f" (did you mean {of_group[0]!r}?)"
    of_scales = [known for known in names if known.split(".")[0] == group and known.split(".")[2:] == below]
    if below and of_scales:
        return f" (did you mean {' or '.join(map(repr, of_scales))}?)"
    path, _, leaf = name.rpartition(".")
    while path and path not in names:
        path, _, leaf = path.rpartition(".")
    inside = [known for known in names if known.rpartition(".")[0] == path]
    leaf = leaf if not path or name.startswith(path) else name
    close = nearest(f"{path}.{leaf}" if path else leaf, inside) or nearest(name, names)
    shown = [known for known in inside if known.rpartition(".")[0] == path]
    return f"; there are {', '.join(shown)}{close}" if shown else close


def _names(command: str, choices: dict[str, str]) -> list[str]:
    config = catalog.commands()[command]
    first = {key: next(iter(_listed(value)), value) for key, value in choices.items()}
    names = [name for name in catalog.paths(catalog.tree(config, first)) if not name.rpartition(".")[2].startswith("_")]
    return [*dict.fromkeys([*(default.group for default in catalog.defaults(config)), *names])]


def _listed(value: str) -> list[str]:
    """The values of a sweep ("a,b"); structures and functions of Hydra are left alone."""
    if re.search(r"[\[\]{}()$]", value):
        return []
    return [part.strip().strip("'\"") for part in value.split(",")]


def _about_error(error: Any) -> str:
    override = getattr(error, "override", None)  # one that Hydra's grammar does not know
    texts = [f"{override}: cannot be read"] if isinstance(override, str) else []
    cause: BaseException | None = error
    while cause is not None:
        text = next((line for line in str(cause).splitlines() if line.strip()), "")
        key = getattr(cause, "full_key", None)
        if text and text not in texts:
            texts.append(f"{key}: {text}" if key and str(key) not in text else text)
        cause = cause.__cause__
    return one_line("; ".join(texts)) or type(error).__name__
