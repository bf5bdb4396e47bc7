"""Shell completion, from file names and YAML keys alone.

bash: `eval "$(vlmreason completion bash)"`; zsh: `eval "$(vlmreason completion zsh)"` (after compinit).
The shell calls `vlmreason completion query "<line up to the cursor>"`, which prints one candidate a line;
one that is complete ends with a space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmreason.assembly import catalog

SHELLS = ("bash", "zsh")

_BASH = r"""_vlmreason() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    COMPREPLY=($(vlmreason completion query "$line" 2>/dev/null))
    # bash splits words at "=": only what follows it is replaced
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        local kept="${word%"${word##*=}"}"
        COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    fi
}
complete -o nospace -o default -F _vlmreason vlmreason
"""

_ZSH = r"""_vlmreason() {
    local candidate
    for candidate in "${(@f)$(vlmreason completion query "${LBUFFER}" 2>/dev/null)}"; do
        [[ -z $candidate ]] && continue
        if [[ $candidate == *' ' ]]; then compadd -- "${candidate% }"; else compadd -S '' -- "$candidate"; fi
    done
    [[ ${compstate[nmatches]} -gt 0 ]] || _files
}
compdef _vlmreason vlmreason
"""


def script(shell: str) -> str:
    """Return what the user's shell evaluates."""
    return {"bash": _BASH, "zsh": _ZSH}[shell]


def query(line: str) -> list[str]:
    """Return candidates for the last word of a command line that begins with the program."""
    words = line.split()[1:]
    current = "" if not line or line[-1].isspace() or not words else words.pop()
    return sorted(set(_candidates(words, current)))


def _candidates(words: list[str], current: str) -> Iterator[str]:
    if not words:
        names = [*catalog.commands(), "completion", "--help"]
        yield from (f"{name} " for name in names if name.startswith(current))
        return
    config = catalog.commands().get(words[0])
    if words[0] == "completion":
        yield from (f"{shell} " for shell in SHELLS if shell.startswith(current))
    elif config and current.startswith("-"):
        yield from (f"{flag} " for flag in catalog.FLAGS if flag.startswith(current))
    elif config:
        if len(words) == 1:
            yield from (f"{action} " for action in catalog.actions(words[0]) if action.startswith(current))
        name, equals, value = current.partition("=")
        if words[0] == "sweep" and equals and name in catalog.SWEEP_FILES:
            yield from (f"{name}={choice} " for choice in catalog.sweep_choices(name) if choice.startswith(value))
            return
        if equals and (known := _known(words[0], name, value)):
            yield from (f"{name}={one} " for one in known)
            return
        typed = [word for word in words[1:] if "=" in word]
        choices = {key: value for key, _, value in (word.partition("=") for word in typed)}
        yield from _settings(config, choices, current)


def _known(command: str, name: str, value: str) -> list[str]:
    """What can stand behind a key of a command, where that is a list: runs, experiments, analyses, words of a type."""
    first, comma, last = value.rpartition(",") if name in ("run", "experiment") else ("", "", value)
    found: Iterable[str] = ()
    if name == "run":
        folder = last.rpartition("/")[0] if "/" in last else "outputs"
        found = (path.parent.as_posix() for path in sorted(Path(folder).glob("*/config.yaml")))
    elif name == "experiment":
        first, comma, last = (first, comma, last) if comma else ("", "[" * last.startswith("["), last.removeprefix("["))
        from vlmreason.studies import artifacts

        found = artifacts.names()
    elif command == "analyze" and name == "what":
        found = catalog.analyses()
    else:
        found = catalog.words_of(command, name)
    return [f"{first}{comma}{one}" for one in found if one.startswith(last)]


def _settings(config: str, choices: dict[str, str], current: str) -> Iterator[str]:
    prefix = current[: len(current) - len(current.lstrip("+~"))]
    name, equals, value = current.removeprefix(prefix).partition("=")
    groups = [default.group for default in catalog.defaults(config)]
    if equals:
        first, comma, last = value.rpartition(",")
        if name in groups or (prefix and name in catalog.groups()):
            options = [option for option in catalog.groups().get(name, ()) if option.startswith(last)]
            yield from (f"{prefix}{name}={first}{comma}{option}" + ("" if comma else " ") for option in options)
        else:
            yield from (
                f"{prefix}{name}={known} " for known in _values(config, choices, name) if known.startswith(value)
            )
        return
    yield from (f"{prefix}{group}=" for group in groups if group.startswith(name))
    tree = catalog.tree(config, choices)
    path, dot, last = name.rpartition(".")
    place = _descend(tree, path.split(".")) if dot else tree
    for key, below in (place or {}).items():
        if str(key).startswith(last):
            yield f"{prefix}{path}{dot}{key}" + ("." if isinstance(below, Mapping) and below else "=")


def _values(config: str, choices: dict[str, str], name: str) -> Iterator[str]:
    """The present value of a plain setting, and true and false where it is one of them."""
    path, _, last = name.rpartition(".")
    tree = catalog.tree(config, choices)
    place = (_descend(tree, path.split(".")) if path else tree) or {}
    value = place.get(last)
    if isinstance(value, bool):
        yield from ("true", "false")
    elif isinstance(value, (int, float, str)) and not str(value).startswith(("?", "$")) and " " not in str(value):
        yield str(value)


def _descend(tree: Mapping[str, Any], path: list[str]) -> Mapping[str, Any] | None:
    for part in path:
        below = tree.get(part)
        if not isinstance(below, Mapping):
            return None
        tree = below
    return tree
