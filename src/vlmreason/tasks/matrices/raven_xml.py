"""RAVEN's puzzles as files: `RAVEN_<n>_<train|val|test>.npz` with panels, `.xml` of the same name with what they hold.

Files come from elsewhere: arrays are read without pickles and bounded in size, XML without document types, so without
entities, and bounded in nodes, each of which stands where RAVEN has it. What is written is read back equal, but for
angles that are not in the list.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import numpy as np

from vlmreason.files import check_ordinary, read_bytes, write_bytes_atomic
from vlmreason.structure import first_line
from vlmreason.tasks.matrices.drawing import Artist, Ink
from vlmreason.tasks.matrices.panels import (
    CONFIGURATIONS,
    NUM_CHOICES,
    NUM_CONTEXT,
    Configuration,
    Entity,
    MatrixSizes,
    MatrixState,
    Panel,
    check_panel,
    read,
)
from vlmreason.tasks.matrices.rules import RULES, solve

NUM_PANELS = NUM_CONTEXT + NUM_CHOICES
MAX_XML_BYTES = 2**20
MAX_NODES = 4000  # a puzzle of nine entities a panel has less than 300
MAX_NPZ_BYTES = 2**24  # as they are in memory: sixteen panels of 1000 px a side
_SHOWN, _MOST_SAID = 20, 200  # characters of a file's content in a message
_WITHIN = {"Panel": "Panels", "Struct": "Panel", "Component": "Struct", "Layout": "Component", "Entity": "Layout"}
_COLUMNS = ("constant", "progression", "arithmetic", "distribute three", "number", "position", "type", "size", "color")
"""Of RAVEN's meta_matrix."""
_NAMES = {"distribute three": "Distribute_Three"}


def read_panels(path: Path, configuration: str) -> tuple[Panel, ...]:
    """Read the 16 panels of an XML file. Raises ValueError for what is no puzzle of the configuration."""
    raw, reader = read_bytes(path, MAX_XML_BYTES), _Reader(CONFIGURATIONS[configuration])
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(raw, True)
        if len(reader.panels) != NUM_PANELS:
            raise ValueError(f"{NUM_PANELS} panels are expected, not {len(reader.panels)}")
        return tuple([tuple([_component(*part) for part in parts]) for parts in reader.panels])
    except (expat.ExpatError, LookupError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: no puzzle in XML ({first_line(error)})") from error


def _refuse(*_: object) -> None:
    raise ValueError("a document type, which is not read: it may hold entities")


class _Reader:
    """Keeps of a file the slots of every component and their entities."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.panels: list[list[tuple[list[Any], list[Mapping[str, str]]]]] = []
        self.num_nodes = 0
        self._open: list[str] = []
        self._slots: dict[int, list[Any]] = {}  # of a component, as the first panel has them

    def start(self, name: str, given: dict[str, str]) -> None:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        above = self._open[-1] if self._open else "nothing"
        if name in _WITHIN and above != _WITHIN[name]:
            raise ValueError(f"{name} stands in {above[:_SHOWN]}, and {_WITHIN[name]} is expected")
        self._open.append(name)
        if name == "Panel":
            self.panels.append([])
        elif name == "Struct" and _given(given, "name") != self.configuration.structure:
            raise ValueError(f"structure {given['name'][:_SHOWN]!r}, and {self.configuration.structure} is expected")
        elif name == "Layout":
            self.panels[-1].append((self._layout(given), []))
        elif name == "Entity":
            self.panels[-1][-1][1].append(given)

    def end(self, name: str) -> None:
        self._open.pop()

    def _layout(self, given: Mapping[str, str]) -> list[Any]:
        """The slots of the next component. Raises ValueError where they are not those of its configuration."""
        number, slots = len(self.panels[-1]), _json(given, "Position")
        if number >= len(self.configuration.components):
            raise ValueError(f"a panel with more than {len(self.configuration.components)} components")
        num = self.configuration.components[number].grid ** 2
        if not isinstance(slots, list) or len(slots) != num or slots != self._slots.setdefault(number, slots):
            raise ValueError(f"a Position that is no list of the component's slots, {num} and in all panels the same")
        return slots


def _component(slots: list[Any], entities: list[Mapping[str, str]]) -> tuple[Entity, ...]:
    found = []
    for entity in entities:
        kind, size, color, angle = (_level(entity, name) for name in ("Type", "Size", "Color", "Angle"))
        box = _json(entity, "bbox")
        if box not in slots:
            raise ValueError("an Entity whose bbox is none of the slots in Position")
        found.append((slots.index(box), kind, size + 1, color, angle))
    return tuple(sorted(found))


def _given(given: Mapping[str, str], name: str) -> str:
    if name not in given:
        raise ValueError(f"a node without {name}")
    return given[name]


def _json(given: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(_given(given, name))
    except json.JSONDecodeError:
        raise ValueError(f"{name}={given[name][:_SHOWN]!r} is no JSON") from None


def _level(entity: Mapping[str, str], name: str) -> int:
    text = _given(entity, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise ValueError(f"{name}={text[:_SHOWN]!r} is no level")
    return int(text)


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz file of bounded size. Raises ValueError, naming it, for whatever goes wrong while it is read."""
    try:
        check_ordinary(path)
        if path.stat().st_size > MAX_NPZ_BYTES:
            raise ValueError(f"more than {MAX_NPZ_BYTES} bytes")
        with zipfile.ZipFile(path) as whole:
            if sum(member.file_size for member in whole.infolist()) > MAX_NPZ_BYTES:
                raise ValueError(f"unpacked more than {MAX_NPZ_BYTES} bytes")
            yield whole
    except Exception as error:  # a damaged file ends in errors of zipfile, zlib, lzma, tokenize or NumPy
        raise ValueError(f"{path.name}: {first_line(error)}") from error


def _member(whole: zipfile.ZipFile, name: str) -> IO[bytes]:
    if f"{name}.npy" not in whole.namelist():
        raise ValueError(f"there is no array {name}")
    return whole.open(f"{name}.npy")


def _check_images(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype != np.uint8 or len(shape) != 3 or shape[0] != NUM_PANELS or not 0 < math.prod(shape) <= MAX_NPZ_BYTES:
        raise ValueError(f"image is no uint8 array of {NUM_PANELS} panels, but {dtype} {shape}"[:_MOST_SAID])


def read_target(path: Path) -> int:
    """Read which choice is right. Raises ValueError for a damaged file, or one whose pictures are not announced as such
    of panels; what they hold is left to `read_images`."""
    with _npz(path) as whole:
        with _member(whole, "image") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("image is not in version 1.0 of NumPy's format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            _check_images(shape, dtype)
        with _member(whole, "target") as file:
            target = np.lib.format.read_array(file, allow_pickle=False)
        if target.shape != () or target.dtype.kind not in "iu" or not 0 <= int(target) < NUM_CHOICES:
            raise ValueError(f"target is no number from 0 to {NUM_CHOICES - 1}")
        return int(target)


def read_images(path: Path) -> np.ndarray[Any, Any]:
    """Read the pictures of the panels, uint8 (16, height, width). Raises ValueError."""
    with _npz(path) as whole, _member(whole, "image") as file:
        images: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
        _check_images(images.shape, images.dtype)
        return images


def read_puzzle(stem: Path, configuration: str, sizes: MatrixSizes) -> MatrixState:
    """Read a puzzle from the two files of a name. Raises ValueError where they hold none with the one right answer."""
    panels, target = read_panels(stem.with_suffix(".xml"), configuration), read_target(stem.with_suffix(".npz"))
    state = MatrixState(configuration, panels[:NUM_CONTEXT], panels[NUM_CONTEXT:], target)
    try:
        for panel in panels:
            check_panel(panel, configuration, sizes)
        found = solve(state, sizes).answer
    except ValueError as error:
        raise ValueError(f"{stem.name}.xml: {error}") from error
    if found != target:
        raise ValueError(f"{stem.name}: target={target}, but the rules of the panels say {found}")
    return state


def write_puzzle(stem: Path, state: MatrixState, artist: Artist) -> None:
    """Write a puzzle into the two files of a name, as RAVEN has them."""
    matrix, whole = _rules(state, artist.sizes), io.BytesIO()
    np.savez_compressed(
        whole,
        image=np.stack(_images(state, artist)),
        target=np.int64(state.answer),
        predict=np.int64(solve(state, artist.sizes).answer),
        meta_matrix=matrix,
        meta_target=np.bitwise_or.reduce(matrix),
    )
    write_bytes_atomic(stem.with_suffix(".npz"), whole.getvalue())
    write_bytes_atomic(stem.with_suffix(".xml"), _xml(state, artist.sizes).encode())


def _images(state: MatrixState, artist: Artist) -> list[Ink]:
    return [artist.panel(panel, state.configuration) for panel in (*state.context, *state.choices)]


def _rules(state: MatrixState, sizes: MatrixSizes) -> np.ndarray[Any, Any]:
    """One row per rule, four per component; an attribute that is noise counts as constant."""
    matrix = np.zeros((8, len(_COLUMNS)), np.uint8)
    for number, ruled in enumerate(solve(state, sizes).components):
        for attribute, rules in enumerate(ruled.rules):
            on, rule = (rules[0].on, rules[0].rule) if rules else (("", "type", "size", "color")[attribute], RULES[0])
            row = matrix[4 * number + attribute]
            row[_COLUMNS.index(rule)] = 1
            both = attribute == 0 and rule == RULES[0]
            for name in ("number", "position") if both or not on else (on,):
                row[_COLUMNS.index(name)] = 1
    return matrix


def _xml(state: MatrixState, sizes: MatrixSizes) -> str:
    parts = CONFIGURATIONS[state.configuration]
    lines = ["<Data>", "<Panels>"]
    for panel in (*state.context, *state.choices):
        lines += ["<Panel>", f"<Struct name={quoteattr(parts.structure)}>"]
        for number, (part, entities) in enumerate(zip(parts.components, panel, strict=True)):
            slots = [[row, col, extent, extent] for row, col, extent in sizes.slots(state.configuration, number)]
            _, *levels = read(entities)
            layout = {
                "name": part.layout,
                "Number": str(len(entities) - 1),
                "Position": json.dumps(slots),
                "Uniformity": str(int(min(levels) >= 0)),
            }
            lines += [f'<Component id="{number}" name={quoteattr(part.name)}>', _tag("Layout", layout, opens=True)]
            for slot, kind, size, color, angle in entities:
                box = json.dumps(slots[slot])
                given = {"Type": kind, "Size": size - 1, "Color": color, "Angle": angle}
                lines.append(_tag("Entity", {"bbox": box, "real_bbox": box, **{k: str(v) for k, v in given.items()}}))
            lines += ["</Layout>", "</Component>"]
        lines += ["</Struct>", "</Panel>"]
    lines += ["</Panels>", "<Rules>"]
    for number, ruled in enumerate(solve(state, sizes).components):
        lines.append(f'<Rule_Group id="{number}">')
        for attribute, rules in enumerate(ruled.rules):
            on = rules[0].on if rules else ("Number/Position", "type", "size", "color")[attribute]
            rule = rules[0].rule if rules else RULES[0]
            attr = "Number/Position" if attribute == 0 and rule == RULES[0] else on.capitalize()
            lines.append(_tag("Rule", {"name": _NAMES.get(rule, rule.capitalize()), "attr": attr}))
        lines.append("</Rule_Group>")
    return "\n".join([*lines, "</Rules>", "</Data>", ""])


def _tag(name: str, given: Mapping[str, str], opens: bool = False) -> str:
    return f"<{name} {' '.join(f'{key}={quoteattr(value)}' for key, value in given.items())}{'' if opens else '/'}>"
