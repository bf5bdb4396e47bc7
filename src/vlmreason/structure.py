"""Plain data (from YAML or JSON) into checked frozen dataclasses.

The one place where configuration and files become typed values: unknown keys, missing keys and wrong types
end with a sentence that names the place, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")
_SHOWN = 300  # characters of a value in a message
MAX_MESSAGE = 1500


def structure(kind: type[T], data: object, where: str = "") -> T:
    """Return a value of type `kind` from mappings, lists and scalars.

    `kind` may be a dataclass, tuple[...], dict[str, ...], Literal, `X | None`, a union of plain types, or a
    plain type; dataclasses nest. `where` is the dotted place used in messages. Raises ValueError.
    """
    return typing.cast(T, _value(kind, data, where))


def speed(default: Any = dataclasses.MISSING, rounds: bool = False) -> Any:
    """Mark a dataclass field as one that changes how fast a run is or where its output goes, never what it computes.

    Such a setting is no part of a run's identity (`speed_settings`). `rounds`: it may change the order of sums, and so
    the last bits of a result.
    """
    return dataclasses.field(default=default, metadata={"speed": True, "rounds": rounds})


def speed_settings(kind: type) -> list[str]:
    """Name the fields of a dataclass that are marked by `speed`."""
    return [field.name for field in dataclasses.fields(kind) if field.metadata.get("speed")]


def exact_settings(kind: type) -> list[str]:
    """Name the fields of a dataclass that decide a result to the last bit."""
    return [f.name for f in dataclasses.fields(kind) if not f.metadata.get("speed") or f.metadata["rounds"]]


def check_choice(where: str, value: object, allowed: Iterable[Any]) -> None:
    """Raise ValueError with what is allowed, and what comes near, where the value is not one of it."""
    allowed = list(allowed)
    if value not in allowed:
        names = list(map(str, allowed))
        raise ValueError(
            f"{where}={_shown(value)}: allowed are {', '.join(names)}{nearest(str(value)[:_SHOWN], names)}"
        )


def check_positive(settings: object, *names: str, where: str = "") -> None:
    """Raise ValueError where one of these keys of settings is less than 1; `where` is their place, as "trainer."."""
    for name in names:
        if (value := getattr(settings, name)) < 1:
            raise ValueError(f"{where}{name}={value}: 1 or more is expected")


def nearest(word: str, choices: Iterable[str]) -> str:
    """Write " (did you mean 'x'?)" for the closest choice, or "" when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _value(kind: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where)
    if origin is Literal:
        check_choice(where, data, args)
        return data
    if origin in (typing.Union, types.UnionType):
        return _union(args, data, where)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{where}={_shown(data)}: a list is expected")
        kinds = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(data):
            raise ValueError(f"{where}={_shown(data)}: {len(kinds)} items are expected, got {len(data)}")
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, data, strict=True)))
    if origin in (dict, Mapping, typing.get_origin(Mapping[str, Any])):
        if not isinstance(data, Mapping):
            raise ValueError(f"{where}={_shown(data)}: a mapping is expected")
        return {_value(args[0], k, where): _value(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where}={_shown(data)}: {kind.__name__} is expected")
    return data


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={_shown(data)}: a mapping is expected")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for key in data:
        if key not in fields:
            place = f"{where}.{key}" if where else str(key)
            raise ValueError(
                f"{place[-_SHOWN:]}: no such key; there are {', '.join(fields)}{nearest(str(key)[:_SHOWN], fields)}"
            )
    values = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{where}.{name}" if where else name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where + '.' if where else ''}{name}: missing")
    return kind(**values)


def _shown(value: object) -> str:
    """A value for a message, which a person is to read."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _union(args: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in args:
        return None
    errors = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _value(arg, data, where)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError(
        errors[0] if len(errors) == 1 else f"{where}={_shown(data)}: no allowed type fits ({'; '.join(errors)})"
    )


def one_line(text: str) -> str:
    """Return a message for a terminal: one line that a person can read, without control characters, its middle cut."""
    if len(text) > 2 * MAX_MESSAGE:
        text = f"{text[:MAX_MESSAGE]} {text[-MAX_MESSAGE:]}"
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(text.split()))
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 + 5 :]}"


def first_line(error: BaseException) -> str:
    """Return what an error of a library says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
