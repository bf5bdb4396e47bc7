"""Every regular expression of the package takes hostile text of the greatest length in linear time."""

import ast
import importlib
import itertools
import pkgutil
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.shipped import TASKS, shipped

import vlmreason
from vlmreason.tasks.base import MAX_RESPONSE_CHARS

SOURCE = Path(vlmreason.__file__).parent
MAX_SECONDS = 120  # of a processor, for all; one quadratic expression alone takes longer
WAYS = ("match", "fullmatch", "search", "findall", "finditer", "split", "sub", "subn")
REPEATED = (
    " ",
    "\t",
    "\n",
    ">",
    "-",
    "> - ",
    "9",
    "9.",
    '"',
    '\\"',
    "(",
    "[",
    "[[]",
    "{",
    "<",
    "|",
    "\\",
    "a",
    "A ",
    "_",
)


def patterns_of(value, name="", depth=6):
    """Compiled expressions in a value and in what it holds, each with the name that it has there."""
    if isinstance(value, re.Pattern):
        yield name, value
    elif depth and isinstance(value, dict):
        for key, one in value.items():
            yield from patterns_of(one, str(key), depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from patterns_of(one, name, depth - 1)
    elif depth and hasattr(value, "__dict__") and getattr(value, "__module__", "").startswith("vlmreason"):
        yield from patterns_of(dict(vars(value)), name, depth - 1)


def calls(path):
    """Of a file of source: what is called, its method and its first argument, as in `name.method(first)`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            yield name, node.func.attr, node.args[0] if node.args else None


def every_use():
    """Every expression with each way in which it is used: (expression, name of a method)."""
    found, ways = set(), {"_FLOAT": {"match"}}  # which YAML asks for
    for path in SOURCE.rglob("*.py"):
        for name, method, first in calls(path):
            if method not in WAYS:
                continue
            ways.setdefault(name, set()).add(method)
            if name == "re" and isinstance(first, ast.Constant):
                found.add((re.compile(first.value), method))
    held = [held for name in TASKS for held in patterns_of(shipped(name))]
    for info in pkgutil.walk_packages([str(SOURCE)], "vlmreason."):
        if info.name != "vlmreason.__main__":
            held += patterns_of(dict(vars(importlib.import_module(info.name))))
    for name, pattern in held:
        found |= {(pattern, method) for method in ways.get(name, {"search"})}
    return sorted(found, key=lambda use: (use[0].pattern, use[1]))


def hostile(pattern):
    """Long texts that an expression may stumble over: its own words and signs, with blanks, again and again."""
    words = dict.fromkeys(word for word in re.findall(r"[A-Za-z]{2,}", pattern.pattern) if len(word) < 20)
    pieces = [*REPEATED, *itertools.islice(words, 6)]
    whole = "".join(itertools.islice(words, 3))
    for piece in pieces:
        text = (piece * (MAX_RESPONSE_CHARS // len(piece)))[:MAX_RESPONSE_CHARS]
        yield text
        yield whole + text[: MAX_RESPONSE_CHARS - len(whole)]


def feed():
    for pattern, method in every_use():
        print(method, repr(pattern.pattern), flush=True)
        for text in hostile(pattern):
            use(pattern, method, text)


def use(pattern, method, text):
    if method in ("match", "fullmatch"):
        getattr(pattern, method)(text)
    else:  # each of the others looks everywhere, as this does
        for _ in pattern.finditer(text):
            pass


def within_budget(program, seconds=MAX_SECONDS):
    """What a program of this module prints, in a process that ends when its time is over."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; import test_patterns as t; {program}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds)),
    )


@pytest.mark.slow
def test_every_expression_ends_in_time():
    done = within_budget("t.feed(); print('finished')")
    lines = done.stdout.splitlines()
    assert lines and lines[-1] == "finished", f"{lines[-1:]} takes too long: {done.stderr[-2000:]}"
    assert len(lines) > 40


@pytest.mark.slow
def test_a_quadratic_expression_is_stopped():
    """The budget tells: this one would take minutes."""
    done = within_budget(r"t.use(t.re.compile(r'[\s>-]*x\Z'), 'sub', ' ' * t.MAX_RESPONSE_CHARS)", seconds=4)
    assert done.returncode < 0


@pytest.mark.parametrize("name", ["visual_analogy", "pattern_heldout_visual_analogy"])
def test_items_of_analogies_are_read_in_linear_time(name):
    program = f"""
from support.shipped import shipped
from vlmreason.tasks.base import MAX_RESPONSE_CHARS
task = shipped({name!r})
state = task.sample(task.levels[0], "test", 0).state
whole = task.response(state, "image").text
for sign in (" ", ">", "-", "- ", " > "):
    for at in (whole.index(":") + 1, len(whole) // 2, len(whole) - 1):
        rest = MAX_RESPONSE_CHARS - len(whole)
        task.score(state, whole[:at] + (sign * rest)[:rest] + whole[at:])
print("finished")
"""
    done = within_budget(program)
    assert done.stdout == "finished\n", done.stderr[-2000:]
