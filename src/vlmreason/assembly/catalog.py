"""What there is to type: commands, config groups, choices, settings.

Reads file names and plain YAML only, so that help and completion answer at once; Hydra is not imported.
A command is a module of `commands/` with a line `CONFIG = "<name>"` that names `conf/<name>.yaml`. With a line
`ACTIONS = (...)` its first word may be one of them, and stands for the setting `action`.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vlmreason import places
from vlmreason.structure import nearest

FLAGS = {
    "--help": "this help",
    "--multirun": "-m: one run for every combination of comma-separated values",
    "--cfg": "-c job: print the composed configuration and stop",
    "--resolve": "with --cfg: references replaced by their values",
    "--package": "-p KEY: with --cfg: only this part",
    "--info": "-i: how the configuration was composed",
    "--config-dir": "-cd DIR: a further folder with groups and choices",
    "--hydra-help": "Hydra's own help",
}
SHORT_FLAGS = {"-h", "-m", "-c", "-p", "-i", "-cd", "-r", "--run", "--version"}
SWEEP_FILES = {"plan": "plans", "profile": "profiles"}  # settings of `sweep` and their folders in sweeps/
MAX_DEPTH = 8  # of files in the defaults lists of others
FLOAT = "tag:yaml.org,2002:float"
_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.[\d_]+([eE][-+]?\d+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
)
_ACTIONS_LINE = re.compile(r"^ACTIONS = \((.*)\)$", re.MULTILINE)
_CONFIG_LINE = re.compile(r'^CONFIG = "(\w+)"$', re.MULTILINE)
_KEY_LINE = re.compile(r"^([A-Za-z_]\w*):\s*(.*?)(?:\s+#\s*(.*))?$")


@dataclass(frozen=True)
class Setting:
    """One key of a YAML file: its value as written and its comment ("" when there is none)."""

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class Default:
    """One group of a command's defaults list, with the choice it starts from (None: to be given)."""

    group: str
    choice: str | None
    comment: str


@functools.cache
def commands() -> dict[str, str]:
    """Name of every command and the name of its configuration."""
    found = {}
    for path in sorted(places.COMMANDS.glob("*.py")):
        match = _CONFIG_LINE.search(path.read_text())
        if match:
            found[path.stem.replace("_", "-")] = match.group(1)
    return found


@functools.cache
def actions(command: str) -> tuple[str, ...]:
    """Return the words that may come first behind a command."""
    match = _ACTIONS_LINE.search((places.COMMANDS / f"{command.replace('-', '_')}.py").read_text())
    return tuple(re.findall(r"\w+", match.group(1))) if match else ()


@functools.cache
def words_of(command: str, key: str) -> tuple[str, ...]:
    """Return the words that a key of a command may be, where its Settings list them, read without importing them."""
    source = (places.COMMANDS / f"{command.replace('-', '_')}.py").read_text()
    found = re.search(rf"^    {re.escape(key)}: [^\n]*Literal\[([^\]]*)\]", source, re.MULTILINE)
    return tuple(re.findall(r'"([^"]+)"', found.group(1))) if found else ()


def as_settings(command: str, words: list[str]) -> list[str]:
    """Return `words` in the form that Hydra reads: a first word that is an action as a setting, the runs of `compare`
    as a list, what is asked in `chat` as text, the settings in set=[...] and what holds glob(...) in experiment=... in
    quotes (a bare = may not stand in a list, nor a glob outside of -m), what goes into an empty mapping as something
    new, and a size of the chosen scale with its name."""
    if words and words[0] in actions(command):
        words = [f"action={words[0]}", *words[1:]]
    words = into_empty(command, _of_scale(command, _with_envs(command, words)))
    keys = [setting.key for setting in settings(commands()[command])]
    if command == "chat":
        words = [re.sub(r"^(prompt|picture)=(.+)$", _literal, word, flags=re.DOTALL) for word in words]
    if command == "compare" and not {"-m", "--multirun"} & set(words):
        words = [f"run=[{_quoted(w[4:])}]" if w.startswith("run=") and w[4:5] not in ("", "[") else w for w in words]
    if "set" in keys:
        words = [f"set=[{_quoted(word[5:-1])}]" if re.fullmatch(r"set=\[.*\]", word) else word for word in words]
    if "experiment" in keys:
        words = [
            re.sub(r"glob\([^()'\"]*\)(?!['\"])", r"'\g<0>'", w) if w.startswith("experiment=") else w for w in words
        ]
    return words


def _with_envs(command: str, words: list[str]) -> list[str]:
    """`task=number_line task.trace=verbose` as `env=number_line env.trace=verbose`: an environment is a task too.

    Raises ValueError where tasks and environments stand in one list: they are two groups.
    """
    chosen = next((word.partition("=")[2] for word in reversed(words) if word.startswith("task=")), "")
    values = [value.strip() for value in chosen.split(",")]
    envs = [value for value in values if value in groups().get("env", ()) and value not in groups().get("task", ())]
    if not envs or "env" not in {default.group for default in defaults(commands()[command])}:
        return words
    if len(envs) < len(values):
        raise ValueError(f"task={chosen}: {', '.join(envs)} is an environment; sweep tasks and environments apart")
    return [re.sub(r"^(\+{0,2})task(?=[.=])", r"\1env", word) for word in words]


def _of_scale(command: str, words: list[str]) -> list[str]:
    """`algorithm.optimizer.lr=1e-5` as `algorithm.nano.optimizer.lr=1e-5`: so it stands in the config.yaml of a run."""
    choices = {key: value for key, _, value in (word.partition("=") for word in words if "=" in word)}
    default = next((d.choice for d in defaults(commands()[command]) if d.group == "scale"), None)
    scale = choices.get("scale", default)
    nested = tree(commands()[command], {key: value.partition(",")[0] for key, value in choices.items()})

    def written(word: str) -> str:
        group, _, below = word.partition("=")[0].lstrip("+~").partition(".")
        key, section = below.partition(".")[0], nested.get(group)
        of_scale = section.get(scale) if isinstance(section, Mapping) and key not in section else None
        if not isinstance(of_scale, Mapping) or key not in of_scale:
            return word
        return word.replace(f"{group}.", f"{group}.{scale}.", 1)

    return [written(word) for word in words]


def into_empty(command: str, words: Sequence[str]) -> list[str]:
    """Return `algorithm.rewards.parsed=0.1` as `++algorithm.rewards.parsed=0.1`, where `algorithm.rewards` is `{}` at
    first.

    An empty mapping takes names that no file lists; what builds from it says which there are. Everywhere else Hydra
    refuses a name that is not there.
    """
    choices = {key: value.partition(",")[0] for key, _, value in (word.partition("=") for word in words if "=" in word)}
    nested = tree(commands()[command], choices)
    return [_sign(nested, word) + word for word in words]


def _sign(nested: Mapping[str, Any], word: str) -> str:
    """What Hydra wants before a setting below an empty mapping, before a mapping in the place of one, and else."""
    key, _, value = word.partition("=")
    place: Any = nested
    for part in key.split("."):
        if not isinstance(place, Mapping) or (place and part not in place):
            return ""
        if not place:
            return "++"
        place = place[part]
    return "+" if place == {} and value.startswith("{") else ""


@functools.cache
def analyses() -> dict[str, str]:
    """Return every analysis, a module of `analysis/` with a function `run`, and the first line of its docstring."""
    found = {}
    for path in sorted((places.HERE / "analysis").glob("*.py")):
        source = path.read_text()
        if re.search(r"^def run\(", source, re.MULTILINE):
            found[path.stem] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return found


@functools.cache
def sweep_choices(setting: str) -> tuple[str, ...]:
    """Return names of the launch profiles or plans that are there."""
    return tuple(sorted(path.stem for path in (places.data_dir("sweeps") / SWEEP_FILES[setting]).glob("*.yaml")))


def sweep_file(setting: str, word: str) -> Path:
    """Return the file of a plan or profile, given by its name in sweeps/ or as a path. Raises ValueError."""
    if "/" in word or word.endswith((".yaml", ".yml")):
        if not Path(word).is_file():
            raise ValueError(f"{setting}={word}: no such file")
        return Path(word)
    names = sweep_choices(setting)
    if word not in names:
        raise ValueError(
            f"{setting}={word}: no such {setting}; there are {', '.join(names)}, or the path of a YAML file"
            + nearest(word, names)
        )
    return places.data_dir("sweeps") / SWEEP_FILES[setting] / f"{word}.yaml"


def module_name(command: str) -> str:
    return f"vlmreason.commands.{command.replace('-', '_')}"


def docstring(command: str) -> str:
    """Return the docstring of a command's module, read without importing it."""
    source = (places.COMMANDS / f"{command.replace('-', '_')}.py").read_text()
    return ast.get_docstring(ast.parse(source)) or ""


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """Return every group (a folder in a folder is written "supervision/phase") and its choices."""
    found: dict[str, set[str]] = {}
    for place in places.conf_dirs():
        for folder in sorted(path for path in place.rglob("*") if path.is_dir()):
            name = folder.relative_to(place).as_posix()
            if name.partition("/")[0] != "hydra":
                found.setdefault(name, set()).update(path.stem for path in folder.glob("*.yaml"))
    return {name: tuple(sorted(choices)) for name, choices in sorted(found.items()) if choices}


def use_conf_dirs(words: Sequence[str]) -> None:
    """Know the choices in the folders that `--config-dir` names, as Hydra does."""
    pairs = [
        (word.partition("=")[0], word.partition("=")[2] or after)
        for word, after in itertools.zip_longest(words, words[1:], fillvalue="")
    ]
    places.use_conf_dirs(Path(folder) for flag, folder in pairs if flag in ("--config-dir", "-cd"))
    for cached in (groups, file_lines, _load, targets):
        cached.cache_clear()


def conf_file(name: str) -> Path:
    """Say where `<name>.yaml` lies: in the first folder of configuration that has it, else in the package's."""
    paths = [place / f"{name}.yaml" for place in places.conf_dirs()]
    return next((path for path in paths if path.is_file()), paths[0])


def defaults(config: str) -> list[Default]:
    """Return the groups of `conf/<config>.yaml`, in order; those of a configuration that it starts from come first.

    Not those that are hidden: see `hidden`.
    """
    found = []
    comments = _default_comments(config)
    for entry in _load(config).get("defaults", []):
        if isinstance(entry, Mapping):
            for group, choice in entry.items():
                if not str(group).startswith("override ") and group not in hidden(config):
                    found.append(Default(str(group), choice and str(choice), comments.get(str(group), "")))
        elif entry != "_self_":
            found += defaults(entry)
    return found


def hidden(config: str) -> set[str]:
    """Return groups that no user sets: there for the choices that an environment's file makes, without any effect."""
    return {group for group, comment in _default_comments(config).items() if comment.startswith("hidden")}


def settings(name: str) -> list[Setting]:
    """Return the outermost keys of `conf/<name>.yaml` (`name` may hold a group: "scale/nano"), with their comments."""
    found: list[Setting] = []
    above = ""
    for entry in _load(name).get("defaults", []) if "/" not in name else []:
        if isinstance(entry, str) and entry != "_self_":
            found += settings(entry)
    for number, line in enumerate(file_lines(name)):
        match = _KEY_LINE.match(line)
        if match and match.group(1) not in ("defaults", "hydra"):
            found.append(Setting(match.group(1), match.group(2), match.group(3) or above))
        above = line.lstrip("# ").rstrip() if line.startswith("#") and number else ""
    return found


def header(name: str) -> str:
    """Return the first comment line of `conf/<name>.yaml`."""
    lines = file_lines(name)
    return lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""


def tree(config: str, choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the settings of a command as nested mappings, with these choices in place of the defaults; nothing is
    resolved.

    choices: by `group`, or `group@package` for one of a file's own defaults, as on the command line.
    """
    return chosen_tree(config, choices)[0]


def chosen_tree(config: str, choices: Mapping[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """Return `tree`, and the choices by package for which there is no place in it."""
    found: dict[str, Any] = {}
    left = {key: choice for key, choice in choices.items() if "@" in key}
    for group, choice in _own_defaults(config, choices).items():
        if choice in groups().get(group, ()):
            insert(found, f"{group}/{choice}", group.split("/"), left)
    _merge(found, _own(config))
    return found, list(left)


def _own_defaults(config: str, choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """The choice of every group of a command: the user's, else what another choice overrides, else the command's."""
    found = {default.group: choices.get(default.group, default.choice) for default in defaults(config)}
    for group, choice in list(found.items()):
        found |= {other: name for other, name in _overridden(f"{group}/{choice}") if other not in choices}
    return found


def _overridden(name: str) -> Iterator[tuple[str, str]]:
    """The groups, each with its choice, that a file or one that it builds on overrides."""
    for entry in _load(name).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and not entry.startswith("/"):
            yield from _overridden(f"{name.rpartition('/')[0]}/{entry}")
        elif isinstance(entry, Mapping):
            key, choice = next(iter(entry.items()))
            if whole := re.fullmatch(r"override /(\w+)@_global_\.\1", str(key)):
                yield whole.group(1), str(choice)


def paths(nested: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return dotted names of all settings, sections included."""
    for key, value in nested.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{key}.")


def _literal(setting: re.Match[str]) -> str:
    """A setting whose value is text, whatever stands in it, unless it is in quotes already."""
    key, text = setting.groups()
    if text == "null" or (len(text) > 1 and text[0] in "'\"" and text[0] == text[-1]):
        return setting.group()
    escaped = text.replace("\\'", "\\\\'").replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{escaped}'"


def _quoted(items: str) -> str:
    """Settings with commas between them, each in quotes; commas within brackets and quotes belong to a setting."""
    found, depth, quote = [""], 0, ""
    for char in items:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        depth += 0 if quote else (char in "[{(") - (char in "]})")
        if char == "," and not quote and not depth:
            found.append("")
        else:
            found[-1] += char
    stripped = [item.strip() for item in found if item.strip()]
    whole = [item[:1] in "'\"" and item[0] == item[-1] for item in stripped]
    escaped = [item.replace("\\'", "\\\\'").replace("'", "\\'") for item in stripped]
    return ",".join(item if done else f"'{text}'" for item, done, text in zip(stripped, whole, escaped, strict=True))


def _own(config: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in _load(config).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            found.update(_own(entry))
    found.update({key: value for key, value in _load(config).items() if key not in ("defaults", "hydra")})
    return found


def insert(
    found: dict[str, Any], name: str, package: list[str], choices: dict[str, str | None], depth: int = 0
) -> None:
    """Merge `conf/<name>.yaml` and its defaults list into `found` at a package, by Hydra's rules.

    choices: those by package; each that has a place here is taken out.
    """
    if depth > MAX_DEPTH:
        return  # a circle, which Hydra reports
    data, folder = _load(name), name.rpartition("/")[0]
    entries = data.get("defaults", [])
    for entry in entries if "_self_" in entries else [*entries, "_self_"]:
        if entry == "_self_":
            _merge(found, _below(package, {key: value for key, value in data.items() if key != "defaults"}))
            continue
        key, choice = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, "")
        if str(key).startswith("override ") or choice is None:
            continue
        word, _, place = str(key).partition("@")
        path = word.strip("/") if word.startswith("/") else f"{folder}/{word}"
        inside = place or (word if choice else "_here_")
        where = package + ([] if inside == "_here_" else re.split(r"[./]", inside.strip("/")))
        if choice:
            path = f"{path}/{choices.pop(f'{path}@' + '.'.join(where), choice)}"
        insert(found, path, where, choices, depth + 1)


def _below(package: list[str], data: dict[str, Any]) -> dict[str, Any]:
    for part in reversed(package):
        data = {part: data}
    return data


def _merge(into: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Merge mappings; `into` shares none with `data` afterwards."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _default_comments(config: str) -> dict[str, str]:
    pattern = re.compile(r"^\s+- (\w+):\s*[^#]*#\s*(.*)$")
    return {m.group(1): m.group(2) for m in map(pattern.match, file_lines(config)) if m}


@functools.cache
def file_lines(name: str) -> tuple[str, ...]:
    path = conf_file(name)
    return tuple(path.read_text().splitlines()) if path.is_file() else ()


@functools.cache
def _load(name: str) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.load("\n".join(file_lines(name)), _loader())
    except yaml.YAMLError:
        return {}  # Hydra reports it when the file is used
    return data if isinstance(data, dict) else {}


@functools.cache
def _loader() -> Any:
    """The class that reads YAML as OmegaConf does: 1e-3 is a number there, and a date is none."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar = {
            first: [(tag, pattern) for tag, pattern in known if tag not in (FLOAT, "tag:yaml.org,2002:timestamp")]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(FLOAT, _FLOAT, list("-+0123456789."))
    return Loader


@functools.cache
def targets(group: str) -> dict[str, str]:
    """Say where the code of every choice of a group lies, by the choice's name; tasks include environments."""
    found: dict[str, str] = {}
    for folder in ("task", "env") if group == "task" else (group,):
        for choice in groups().get(folder, ()):
            data = tree_of(f"{folder}/{choice}")
            if "_target_" in data:
                found[str(data["name"])] = str(data["_target_"])
    return found


def tree_of(name: str) -> dict[str, Any]:
    """Return the content of `conf/<name>.yaml` with that of the files of its group that it builds on, unresolved."""
    found: dict[str, Any] = {}
    insert(found, name, [], {})
    return found


def file_content(group: str, name: str) -> Any:
    """Return the content of a file of conf/ over that of those of its group that it builds on."""
    from omegaconf import OmegaConf

    own: Any = OmegaConf.load(conf_file(f"{group}/{name}"))
    others = [other for other in own.pop("defaults", []) if isinstance(other, str) and other != "_self_"]
    return OmegaConf.merge(*(file_content(group, other) for other in others), own)
