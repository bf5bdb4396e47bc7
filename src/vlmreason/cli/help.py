"""Help texts, put together from the commands' docstrings and the comments in `conf/`."""

from __future__ import annotations

import shutil
import textwrap

from vlmreason.assembly import catalog

_EXAMPLES = """\
Examples:
  vlmreason train                                        the default study: nano scale, minutes on a laptop
  vlmreason train task=grid_navigation supervision=mix_plus seed=1
  vlmreason train -m supervision=image,align_mix_plus seed=0,1,2      every combination, one after the other
  vlmreason generate task=table_readout level=hard num=100 out=tables
  vlmreason train optimizer=adamw --cfg job              show the configuration and stop

Settings are written key=value; a group takes one of its choices (task=table_readout), a key inside it a dot
(optimizer.lr=0.001). `vlmreason <command> --help` lists them; VLMREASON_DEBUG=1 shows full tracebacks.
"""


def overview() -> str:
    """Help of the program: its commands with the first line of their docstrings."""
    names = [*catalog.commands(), "completion"]
    width = max(map(len, names)) + 2
    lines = ["usage: vlmreason <command> [key=value ...]", "", "How vision-language models learn to reason.", ""]
    lines.append("Commands:")
    for name in catalog.commands():
        lines.append(f"  {name:<{width}}{_first_line(catalog.docstring(name))}")
    lines.append(f'  {"completion":<{width}}Shell completion: eval "$(vlmreason completion bash)", or zsh.')
    return "\n".join(lines) + "\n\n" + _EXAMPLES


def command_help(command: str) -> str:
    """Help of a command: its docstring, the groups with their choices, the settings with their comments."""
    config = catalog.commands()[command]
    defaults = [default for default in catalog.defaults(config) if default.group in catalog.groups()]
    actions = f" [{' | '.join(catalog.actions(command))}]" if catalog.actions(command) else ""
    parts = [f"usage: vlmreason {command}{actions} [key=value ...]\n", catalog.docstring(command).strip() + "\n"]
    if defaults:
        parts.append("Groups (the choice taken when none is given, then all choices):")
        heads = {default.group: f"{default.group}={_choice(default)}" for default in defaults}
        width = max(map(len, heads.values())) + 2
        for default in defaults:
            choices = ", ".join(catalog.groups()[default.group])
            parts.append(
                _entry(heads[default.group], width, choices + (f"  ({default.comment})" * bool(default.comment)))
            )
        parts.append("")
    parts.append("Settings (??? must be given):")
    parts += _settings(catalog.settings(config), "")
    if command == "sweep":
        parts += ["", *(f"{name}: {', '.join(catalog.sweep_choices(name))}" for name in catalog.SWEEP_FILES)]
    if command == "analyze":
        parts += ["", *(_entry(f"what={name}", 20, text) for name, text in catalog.analyses().items())]
    for default in defaults:
        if default.choice:
            name = f"{default.group}/{default.choice}"
            keys = _settings(catalog.settings(name), f"{default.group}.")
            parts += ["", f"{default.group}={default.choice}: {catalog.header(name)}", *keys]
    parts += ["", "Options:"]
    parts += [_entry(flag, 16, text) for flag, text in catalog.FLAGS.items()]
    return "\n".join(parts) + "\n"


def _choice(default: catalog.Default) -> str:
    """What a group starts from; a comment that begins with null: says what none means, else one must be given."""
    return default.choice or ("null" if default.comment.startswith("null:") else "???")


def _settings(settings: list[catalog.Setting], prefix: str) -> list[str]:
    visible = [s for s in settings if not s.key.startswith("_")]
    shown = [(f"{prefix}{s.key}={s.value}" if s.value else f"{prefix}{s.key}.*", s.comment) for s in visible]
    width = min(max((len(head) for head, _ in shown), default=0), 36) + 2
    return [_entry(head, width, comment) for head, comment in shown]


def _entry(head: str, width: int, text: str) -> str:
    columns = max(shutil.get_terminal_size((120, 24)).columns, 60)
    body = textwrap.wrap(text, max(columns - width - 2, 30)) or [""]
    lines = (
        [f"  {head:<{width}}{body[0]}".rstrip()] if len(head) < width else [f"  {head}", " " * (width + 2) + body[0]]
    )
    return "\n".join(
        [line.rstrip() for line in lines if line.strip()] + [" " * (width + 2) + line for line in body[1:]]
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
