"""RAVEN's puzzles as files: `RAVEN_<n>_<train|val|test>.npz` with panels, `.xml` of the same name with what they hold.

Files come from elsewhere: arrays are read without pickles and bounded in size, XML without document types, so without
entities, and bounded in nodes. What is written is read back equal, but for angles that are not in the list.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
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
_COLUMNS = ("constant", "progression", "arithmetic", "distribute three", "number", "position", "type", "size", "color")
"""Of RAVEN's meta_matrix."""
_NAMES = {"distribute three": "Distribute_Three"}


def read_panels(path: Path) -> tuple[Panel, ...]:
    """Read the 16 panels of an XML file. Raises ValueError for what is no puzzle of RAVEN's."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(read_bytes(path, MAX_XML_BYTES), True)
        panels = tuple(tuple(map(_component, parts)) for parts in reader.panels)
    except (expat.ExpatError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: no puzzle in XML ({first_line(error)})") from error
    if len(panels) != NUM_PANELS:
        raise ValueError(f"{path.name}: {NUM_PANELS} panels are expected, not {len(panels)}")
    return panels


def _refuse(*_: object) -> None:
    raise ValueError("a document type, which is not read: it may hold entities")


class _Reader:
    """Keeps of a file the layouts of components and their entities."""

    def __init__(self) -> None:
        self.panels: list[list[tuple[Mapping[str, str], list[Mapping[str, str]]]]] = []
        self.num_nodes = 0

    def start(self, name: str, given: dict[str, str]) -> None:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        if name == "Panel":
            self.panels.append([])
        elif name == "Layout":
            self.panels[-1].append((given, []))
        elif name == "Entity":
            self.panels[-1][-1][1].append(given)


def _component(part: tuple[Mapping[str, str], list[Mapping[str, str]]]) -> tuple[Entity, ...]:
    layout, entities = part
    slots = json.loads(layout["Position"])
    found = []
    for entity in entities:
        kind, size, color, angle = (_level(entity, name) for name in ("Type", "Size", "Color", "Angle"))
        found.append((slots.index(json.loads(entity["bbox"])), kind, size + 1, color, angle))
    return tuple(sorted(found))


def _level(entity: Mapping[str, str], name: str) -> int:
    text = entity[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise ValueError(f"{name}={text[:20]!r} is no level")
    return int(text)


def read_arrays(path: Path, *names: str) -> list[np.ndarray[Any, Any]]:
    """Read arrays of an npz file. Raises ValueError for anything else, pickles included."""
    check_ordinary(path)
    try:
        with zipfile.ZipFile(path) as whole:
            if sum(member.file_size for member in whole.infolist()) > MAX_NPZ_BYTES:
                raise ValueError(f"more than {MAX_NPZ_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, MemoryError) as error:
        raise ValueError(f"{path.name}: {first_line(error)}") from error


def read_target(path: Path) -> int:
    """Read which choice is right."""
    (target,) = read_arrays(path, "target")
    if target.shape != () or target.dtype.kind not in "iu" or not 0 <= int(target) < NUM_CHOICES:
        raise ValueError(f"{path.name}: target is no number from 0 to {NUM_CHOICES - 1}")
    return int(target)


def read_images(path: Path) -> np.ndarray[Any, Any]:
    """Read the pictures of the panels, uint8 (16, height, width)."""
    (image,) = read_arrays(path, "image")
    if image.dtype != np.uint8 or image.ndim != 3 or len(image) != NUM_PANELS or min(image.shape) < 1:
        raise ValueError(
            f"{path.name}: image is no uint8 array of {NUM_PANELS} panels, but {image.dtype} {image.shape}"
        )
    return image


def read_puzzle(stem: Path, configuration: str, sizes: MatrixSizes) -> MatrixState:
    """Read a puzzle from the two files of a name. Raises ValueError where they hold none with the one right answer."""
    panels, target = read_panels(stem.with_suffix(".xml")), read_target(stem.with_suffix(".npz"))
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
