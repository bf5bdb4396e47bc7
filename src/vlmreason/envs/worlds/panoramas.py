"""Views of a street: photographs that are there, or drawn ones."""

from __future__ import annotations

import math
import random
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.envs.worlds.routes import (
    _MAX_PIXELS,
    _METRES,
    _NEAR,
    MAPPING_FILE,
    PICKLE_HINT,
    PICTURES,
    SIDES,
    Geocode,
    Point,
    Route,
    _eighth,
    _geocode,
    _read_json,
    _route_files,
    _shown,
    _within,
)
from vlmreason.pictures import Color, Picture, text_sprite


class Panoramas:
    """The panoramas of a folder of routes: for every geocode the picture nearest to it."""

    def __init__(self, places: Sequence[tuple[Geocode, Path]]) -> None:
        self._files = [file for _, file in places]
        self._geocodes = np.array([geocode for geocode, _ in places], dtype=np.float64)

    def nearest(self, geocode: Geocode) -> tuple[float, Path]:
        """Return the distance to the panorama nearest to a geocode (metres), and its picture."""
        width = math.cos(math.radians(geocode[0]))
        north, east = (self._geocodes - np.array(geocode)).T * _METRES
        apart = np.hypot(north, east * width)
        best = int(apart.argmin())
        return float(apart[best]), self._files[best]

    def shows(self, route: Route) -> bool:
        """Tell whether start and corners of a route have a panorama within 20 metres."""
        return all(self.nearest(g)[0] <= _NEAR for g in (route.start, *(m.geocode for m in route.milestones)))

    def view(self, geocode: Geocode, heading: int, width: int, height: int) -> Picture:
        """Return what is seen in a heading (degrees), 90 degrees wide; read-only. Raises ValueError for what is no
        picture."""
        return _view(self.nearest(geocode)[1], heading % 360, width, height)


@lru_cache(maxsize=256)
def _view(file: Path, heading: int, width: int, height: int) -> Picture:
    panorama, rotation = _open_panorama(file)
    view = perspective(panorama, heading + rotation, width, height)
    view.setflags(write=False)
    return view


def read_panoramas(path: Path) -> Panoramas | None:
    """Return the panoramas beside the routes of `read_routes(path)`; None where there is no mapping from geocodes to
    them.

    Raises ValueError for a mapping in another form, for one that is a pickle alone, and for names out of the folder.
    """
    places: list[tuple[Geocode, Path]] = []
    for folder in sorted({file.parent for file in _route_files(path)}):
        mapping = folder / MAPPING_FILE
        if not mapping.is_file():
            if mapping.with_suffix(".pkl").is_file():
                raise ValueError(f"{mapping.with_suffix('.pkl')}: {PICKLE_HINT}")
            continue
        data = _read_json(mapping)
        if not isinstance(data, list):
            raise ValueError(f"{mapping}: a list of [latitude, longitude, id] is expected")
        pictures = folder / PICTURES if (folder / PICTURES).is_dir() else folder
        for number, item in enumerate(data):
            where = f"{mapping}: item {number}"
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], str):
                raise ValueError(f"{where}={_shown(item)}: [latitude, longitude, id] is expected")
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", item[2]):
                raise ValueError(f"{where}={_shown(item[2])}: an id has 1 to 128 letters, digits, - and _")
            places.append((_geocode(item[:2], where), pictures / f"{item[2]}.jpg"))
    return Panoramas(places) if places else None


def routes_in_view(routes: Sequence[Route], panoramas: Panoramas | None, path: Path) -> tuple[Route, ...]:
    """Return the routes that the panoramas show; how many are left out is warned of. Raises ValueError where none is
    left."""
    if panoramas is None:
        return tuple(routes)
    kept = tuple(route for route in routes if panoramas.shows(route))
    if not kept:
        raise ValueError(f"{path}: no route has a street view within {_NEAR:g} m of its corners")
    if len(kept) < len(routes):
        lacking = len(routes) - len(kept)
        warnings.warn(f"{path}: {lacking} of {len(routes)} routes lack street views and are left out", stacklevel=2)
    return kept


@lru_cache(maxsize=16)
def _open_panorama(file: Path) -> tuple[Picture, float]:
    """A panorama and how far north is turned in it (degrees)."""
    folder = file.parent.resolve()
    if not file.resolve().is_relative_to(folder):
        raise ValueError(f"{file}: leads out of its folder")
    meta = _read_json(file.with_suffix(".metadata.json"))
    rotation: Any = meta.get("rotation") if isinstance(meta, dict) else None
    if not _within(rotation, 360):
        raise ValueError(f"{file.with_suffix('.metadata.json')}: rotation: degrees are expected")
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{file}: more than {_MAX_PIXELS} pixels are not read")
            return np.array(image.convert("RGB")), float(rotation)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read as a picture: {error}") from None


def perspective(panorama: Picture, heading: float, width: int, height: int) -> Picture:
    """Return a view of 90 degrees out of an equirectangular panorama, the middle of which is seen at a heading of 180
    degrees; bilinear. (H, W, 3) to (height, width, 3)."""
    x = (np.arange(width) - (width - 1) / 2) / (width / 2)
    y = ((np.arange(height) - (height - 1) / 2) / (width / 2))[:, None]
    longitude = np.radians(heading - 180) + np.arctan(x)[None, :]
    latitude = np.arctan2(y, np.sqrt(1 + x * x)[None, :])
    rows, cols = panorama.shape[:2]
    col = np.broadcast_to((longitude / (2 * np.pi) + 0.5) * cols - 0.5, (height, width))
    row = np.clip((latitude / np.pi + 0.5) * rows - 0.5, 0, rows - 1)
    return _bilinear(panorama, row, col)


def _bilinear(picture: Picture, row: NDArray[np.float64], col: NDArray[np.float64]) -> Picture:
    """Pixels at fractional places; columns wrap around."""
    rows, cols = picture.shape[:2]
    top, left = np.floor(row).astype(int), np.floor(col).astype(int)
    down, across = (row - top)[..., None], (col - left)[..., None]
    below, right = np.minimum(top + 1, rows - 1), (left + 1) % cols
    left = left % cols
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[below, left] * (1 - across) + picture[below, right] * across
    found: Picture = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return found


_VIEW_SLOT = ((0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (3, 0), (3, 1), (0, 0))  # of each side: view, third of the view
_ROAD, _LINE_COLOR, _EDGE = (105, 105, 110), (235, 235, 235), (0, 0, 0)
_VARIANTS = 6


@dataclass(frozen=True)
class _Look:
    sky: Color
    ground: Color
    facades: tuple[Color, ...]
    window: Color
    sign: Color
    letters: Color


_LOOK = {
    "home": _Look(
        (190, 220, 245), (150, 170, 130), ((170, 90, 70), (190, 150, 110), (150, 110, 90)), (250, 240, 200),
        (20, 60, 120), (255, 255, 255),
    ),
    "away": _Look(
        (245, 205, 165), (200, 190, 165), ((90, 140, 150), (235, 235, 225), (120, 120, 170)), (60, 70, 90),
        (250, 205, 40), (0, 0, 0),
    ),
}  # fmt: skip


def draw_views(point: Point, look: str, size: tuple[int, int], font: int) -> Picture:
    """Return the street views at a point of a synthetic town, front and right above back and left. (height, width, 3).

    A landmark is a sign with its name in the place where it is: a third of a view wide, a third high.
    """
    width, height = size[0] // 2, size[1] // 2
    roads = {_VIEW_SLOT[_eighth(way - point.heading)] for way in _ways(point)}
    picture: Picture = np.empty((2 * height, 2 * width, 3), dtype=np.uint8)
    place = round(point.geocode[0] * 1e5) * 7 + round(point.geocode[1] * 1e5) * 3
    for view in range(4):
        row, col = divmod(view, 2)
        slots = tuple(slot for at, slot in sorted(roads) if at == view)
        variant = (place + _eighth(point.heading + 90 * view)) % _VARIANTS
        picture[row * height : (row + 1) * height, col * width : (col + 1) * width] = _street(
            look, variant, slots, width, height
        )
    if point.landmark is not None and point.side is not None:
        view, slot = _VIEW_SLOT[SIDES.index(point.side)]
        row, col = divmod(view, 2)
        style = _LOOK[look]
        sign_w, sign_h = width // 3, height // 3
        sign = text_sprite(point.landmark, font, style.letters, style.sign, True, sign_w - 1, sign_h - 1)
        top, left = row * height + sign_h, col * width + slot * sign_w
        picture[top : top + sign_h - 1, left : left + sign_w - 1] = sign
    return picture


def _ways(point: Point) -> list[int]:
    """The headings in which roads lead off."""
    if point.turn is None:
        return [point.heading + 180] if point.last else [point.heading, point.heading + 180]
    turned = [point.turn, point.turn + 180]
    return [point.heading, point.heading + 180, *turned] if point.crossing else turned


@lru_cache(maxsize=256)
def _street(look: str, variant: int, roads: tuple[int, ...], width: int, height: int) -> Picture:
    """One view: sky above three facades above the ground; in place of a facade a road that goes off there."""
    style = _LOOK[look]
    image = Image.new("RGB", (width, height), style.sky)
    pen = ImageDraw.Draw(image)
    third_w, third_h = width // 3, height // 3
    pen.rectangle((0, 2 * third_h, width, height), fill=style.ground)
    rng = random.Random(variant)
    for slot in range(3):
        left, high = slot * third_w, third_h - rng.randrange(1 + third_h // 2)
        facade = style.facades[rng.randrange(len(style.facades))]
        if slot in roads:
            continue
        pen.rectangle((left, high, left + third_w - 2, 2 * third_h - 1), fill=facade)
        pane = max(2, third_w // 6)
        for x in range(left + pane, left + third_w - 2 * pane, 2 * pane):
            for y in range(high + pane, 2 * third_h - 2 * pane, 2 * pane):
                pen.rectangle((x, y, x + pane - 1, y + pane - 1), fill=style.window)
    for slot in roads:
        middle = slot * third_w + third_w // 2
        near = width // 2 + (middle - width // 2) // 2
        pen.polygon(
            [(middle - third_w // 8, 2 * third_h), (middle + third_w // 8, 2 * third_h), (near + third_w, height),
             (near - third_w, height)],
            fill=_ROAD,
        )  # fmt: skip
        pen.line([(middle, 2 * third_h), (near, height)], fill=_LINE_COLOR, width=max(1, width // 72))
    pen.line([(width - 1, 0), (width - 1, height - 1), (0, height - 1)], fill=_EDGE)
    view = np.array(image)
    view.setflags(write=False)
    return view


def views_of_files(point: Point, panoramas: Panoramas, size: tuple[int, int]) -> Picture:
    """Return the street views at a point, front and right above back and left. (height, width, 3)."""
    width, height = size[0] // 2, size[1] // 2
    views = [panoramas.view(point.geocode, point.heading + 90 * i, width, height) for i in range(4)]
    return np.concatenate([np.concatenate(views[:2], axis=1), np.concatenate(views[2:], axis=1)])
