"""`python -m vlmreason <command> [key=value ...]`, also installed as `vlmreason`.

Threads that wait for each other sleep: by default they spin, and where a machine has other work two of them are then
slower than one. It is chosen here, before torch is there; OMP_WAIT_POLICY=active takes it back.

Help and completion are answered here without importing anything heavy; commands run through Hydra
(cli/runner.py). Exit codes: 0 done, 1 failed, 2 a mistake in what was typed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the program on `sys.argv`; ends with SystemExit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as in `vlmreason --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _dispatch(words: list[str]) -> int:
    from vlmreason.assembly import catalog, errors

    try:
        if not words or words[0] in ("-h", "--help", "help"):
            return _help(words[1:2] if words[:1] == ["help"] else [])
        if words[0] == "--version":
            return _version()
        if words[0] == "completion":
            return _completion(words[1:])
        _check_command(words[0])
        if {"-h", "--help"} & set(words[1:]):
            return _help(words[:1])
        catalog.use_conf_dirs(words[1:])
        errors.check_words(words[0], words[1:])
        settings = catalog.as_settings(words[0], words[1:])
    except ValueError as error:
        return errors.report(error)
    from vlmreason.cli import runner

    return runner.launch(words[0], catalog.commands()[words[0]], settings)


def _check_command(word: str) -> None:
    from vlmreason.assembly import catalog
    from vlmreason.structure import nearest

    names = [*catalog.commands(), "completion"]
    if word not in names:
        first = " (the command comes first)" if word.startswith("-") or "=" in word else nearest(word, names)
        raise ValueError(f"{word}: no such command; there are {', '.join(names)}{first}")


def _help(words: list[str]) -> int:
    from vlmreason.cli import help

    if words:
        _check_command(words[0])
    print(help.command_help(words[0]) if words and words[0] != "completion" else help.overview(), end="")
    return 0


def _version() -> int:
    from vlmreason import __version__

    print(__version__)
    return 0


def _completion(words: list[str]) -> int:
    from vlmreason.cli import completion

    if words[:1] == ["query"] and len(words) == 2:
        print("\n".join(completion.query(words[1])))
        return 0
    if len(words) != 1 or words[0] not in completion.SHELLS:
        raise ValueError(f"completion {' '.join(words)}: allowed are {', '.join(completion.SHELLS)}")
    print(completion.script(words[0]), end="")
    return 0


if __name__ == "__main__":
    main()
