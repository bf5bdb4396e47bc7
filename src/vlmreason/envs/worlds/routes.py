"""Routes through towns for V-IRL (section 5.4, appendix D.2): as data, from files, synthetic, and as street views.

The format of files is the one in which the routes of V-IRL's vision-language navigation are published: a folder with

- `route_infos.json`: `[routes, count]`, a list of routes, or one route. A route has `start_place.relocated_geocode`
  and `route_results.geocode_list` ([latitude, longitude] in degrees), `dest_place.name`, `init_heading` (degrees, 0:
  not given) and `milestone_info`, a text with a block of `"key": "value",` lines for each end of a straight road:
  `landmarks` ("X is on your left front", "The destination X is on your left" or "No landmark nearby"), `distance`
  ("159 meters", from the end of the road before) and `to_next_intersection_heading` ("298 (northwest)");
- `street_views/<id>.jpg` (equirectangular panoramas) beside `<id>.metadata.json` with `rotation` (degrees), and
  `gps_pano_mapping.json`, a list of [latitude, longitude, id]. Without that file the street views are drawn.

The published mapping is a pickle, which can run any code when it is read; `PICKLE_HINT` says how to convert it. All
files are untrusted: sizes are limited, names of pictures cannot leave the folder.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlmreason.files import read_bytes, write_json_atomic

Geocode = tuple[float, float]
"""Latitude and longitude in degrees."""

COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
SIDES = ("front", "right front", "right", "right behind", "behind", "left behind", "left", "left front")
TURNS = ("left", "right", "slightly left", "slightly right")
LOOKS = ("home", "away")

SHORT_NAMES = ("Bank", "Cafe", "Gym", "Hotel", "Inn", "Mall", "Park", "Pub", "Shop", "Spa", "Zoo", "Deli")
_KINDS = ("Bakery", "Museum", "Theater", "Library", "Hotel", "Market", "Gallery", "Diner", "Bank", "Station")
FULL_NAMES = tuple(f"{first} {kind}" for kind in _KINDS for first in ("Harbor", "Golden", "Maple", "Royal", "Lotus"))
NAMES: Mapping[str, Sequence[str]] = {"short": SHORT_NAMES, "full": FULL_NAMES}

SPACING = 20  # metres of road for each point at which an agent stops
ROUTES_FILE, MAPPING_FILE, PICTURES = "route_infos.json", "gps_pano_mapping.json", "street_views"
PICKLE_HINT = (
    'a pickle is not read, because it can run any code; if you trust it, convert it once: python -c "import json, '
    "pickle; json.dump([[*k, v] for k, v in pickle.load(open('gps_pano_mapping.pkl', 'rb')).items()], "
    "open('gps_pano_mapping.json', 'w'))\""
)

_MAX_BYTES = 256 * 2**20
_MAX_ROUTES = 100_000
_MAX_ROADS = 64
_MAX_NAME = 200
_MAX_PIXELS = 64 * 2**20
_MAX_METRES = 100_000
_NEAR = 20.0  # metres within which a panorama shows a point
_METRES = 111_320.0  # of a degree of latitude


@dataclass(frozen=True)
class Milestone:
    """The end of a straight road: the heading (degrees clockwise from north) in which it is walked, its length in
    metres, and the landmark that is seen from there, with its side; None: no landmark."""

    geocode: Geocode
    heading: int
    distance: int
    landmark: str | None
    side: str | None


@dataclass(frozen=True)
class Route:
    """Where one stands, the heading (degrees) there, and the ends of the roads; the last is the destination."""

    start: Geocode
    heading: int
    milestones: tuple[Milestone, ...]


@dataclass(frozen=True)
class Point:
    """A coordinate at which one action is taken. `instruction` counts from 0, two for each road: turn, walk.

    `turn` is the new heading (degrees) where the action is a turn; the action is stop() where `last`, else forward().
    """

    geocode: Geocode
    heading: int
    instruction: int
    landmark: str | None = None
    side: str | None = None
    crossing: bool = False
    turn: int | None = None
    last: bool = False


def compass(heading: int) -> str:
    """Return the compass point that is nearest to a heading in degrees."""
    return COMPASS[_eighth(heading)]


def turn_label(before: int, after: int) -> str:
    """Say how one turns from a heading to another (degrees), the short way round: up to 45 degrees slightly.

    From 350 to 10 degrees is to the right; half a turn is called right.
    """
    change = (after - before + 179) % 360 - 179  # -179 to 180
    side = "right" if change >= 0 else "left"
    return side if abs(change) > 45 else f"slightly {side}"


@lru_cache(maxsize=1024)
def rail(route: Route, straight: int) -> tuple[Point, ...]:
    """Return the points of a route in order, with 1 to `straight` points on a road; a right action leads to the
    next."""
    points: list[Point] = []
    where, heading = route.start, route.heading
    landmark: str | None = None
    side: str | None = None
    for number, end in enumerate(route.milestones):
        points.append(Point(where, heading, 2 * number, landmark, side, crossing=number > 0, turn=end.heading))
        num = num_stops(end.distance, straight)
        for i in range(1, num + 1):
            there = tuple(a + (b - a) * i / (num + 1) for a, b in zip(where, end.geocode, strict=True))
            points.append(Point((there[0], there[1]), end.heading, 2 * number + 1))
        where, heading, landmark, side = end.geocode, end.heading, end.landmark, end.side
    last = 2 * len(route.milestones) - 1
    return (*points, Point(where, heading, last, landmark, side, last=True))


def num_stops(distance: int, straight: int) -> int:
    """Return points on a road of that many metres."""
    return min(straight, max(1, distance // SPACING))


def structure_of(route: Route, straight: int) -> object:
    """Return what makes a route another one, apart from where the town lies: headings, stops on the roads,
    landmarks."""
    ends = [[m.heading, num_stops(m.distance, straight), m.landmark, m.side] for m in route.milestones]
    return [route.heading, ends]


def way_of(route: Route, straight: int) -> object:
    """Return the way of a route, whatever stands beside it and wherever north is: turns in words, stops on the roads.

    Routes that split by it share no way, whichever words for directions are in force on either side.
    """
    headings = [route.heading, *(m.heading for m in route.milestones)]
    turns = [turn_label(before, after) for before, after in itertools.pairwise(headings)]
    return [[turn, num_stops(m.distance, straight)] for turn, m in zip(turns, route.milestones, strict=True)]


def sample_route(
    rng: random.Random, roads: tuple[int, int], straight: int, names: Sequence[str], diagonals: bool
) -> Route:
    """Return a route of a synthetic town: turns of 90 degrees, of 45 as well with `diagonals`; every road has another
    name at its end, but for one in four of those before the last, which have none."""
    num = rng.randint(*roads)
    changes = (-90, -45, 45, 90) if diagonals else (-90, 90)
    start = where = (40.72, -73.99)
    heading = before = 90 * rng.randrange(4) if not diagonals else 45 * rng.randrange(8)
    chosen = rng.sample(names, num)
    ends = []
    for number, name in enumerate(chosen):
        heading = (heading + rng.choice(changes)) % 360
        distance = SPACING * rng.randint(1, straight) + SPACING // 2
        east, north = math.sin(math.radians(heading)), math.cos(math.radians(heading))
        where = _moved(where, distance * north, distance * east)
        if number < num - 1 and rng.random() < 0.25:
            ends.append(Milestone(where, heading, distance, None, None))
        else:
            ends.append(Milestone(where, heading, distance, name, rng.choice(SIDES)))
    return Route(start, before, tuple(ends))


def _moved(where: Geocode, north: float, east: float) -> Geocode:
    """A geocode so many metres further, rounded to about a tenth of a metre as in files."""
    width = _METRES * math.cos(math.radians(where[0]))
    return round(where[0] + north / _METRES, 6), round(where[1] + east / width, 6)


def write_routes(path: Path, routes: Sequence[Route]) -> None:
    """Write routes as `route_infos.json` (the path of the file) in the published format."""
    write_json_atomic(path, [[_as_json(route) for route in routes], len(routes)])


def _as_json(route: Route) -> dict[str, Any]:
    blocks, heading = [], route.heading
    for number, end in enumerate(route.milestones, start=1):
        last = number == len(route.milestones)
        seen = f"{end.landmark} is on your {end.side}" if end.landmark else "No landmark nearby"
        pairs = {
            "intersection_idx": str(number),
            "landmarks": ("The destination " if last and end.landmark else "") + seen,
            "distance": f"{end.distance} meters",
            "human_heading": str(heading),
            "to_next_intersection_heading": f"{end.heading} ({compass(end.heading)})",
        }
        blocks.append("\n{\n" + "".join(f'"{key}": "{value}",\n' for key, value in pairs.items()) + "}\n")
        heading = end.heading
    goal = route.milestones[-1]
    landmarks = [{"name": m.landmark} if m.landmark else None for m in route.milestones[:-1]]
    return {
        "start_place": {"relocated_geocode": list(route.start)},
        "dest_place": {"name": goal.landmark, "geocode": list(goal.geocode)},
        "route_results": {
            "geocode_list": [list(m.geocode) for m in route.milestones],
            "distance_list": [m.distance for m in route.milestones],
            "landmark_list": landmarks,
        },
        "init_heading": route.heading or 360,  # 0 says that it is not given
        "milestone_info": "".join(blocks),
    }


def read_routes(path: Path) -> tuple[Route, ...]:
    """Return the routes of a folder with `route_infos.json`, or with folders that have it, or of such a file.

    A route whose start heading is not given gets one that depends on nothing but the route. Raises ValueError that
    names the file and the key.
    """
    routes: list[Route] = []
    for file in _route_files(path):
        data = _read_json(file)
        if isinstance(data, list) and len(data) == 2 and isinstance(data[0], list) and not isinstance(data[1], dict):
            data = data[0]
        items = data if isinstance(data, list) else [data]
        if not 1 <= len(items) <= _MAX_ROUTES:
            raise ValueError(f"{file}: 1 to {_MAX_ROUTES} routes are expected, there are {len(items)}")
        routes += [_route(item, f"{file}: route {number}") for number, item in enumerate(items)]
    return tuple(routes)


def _route_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder of routes")
    found = [path / ROUTES_FILE] if (path / ROUTES_FILE).is_file() else sorted(path.glob(f"*/{ROUTES_FILE}"))
    if not found:
        raise ValueError(f"{path}: {ROUTES_FILE} is expected in the folder, or in folders of it")
    return found


def _read_json(file: Path) -> Any:
    try:
        return json.loads(read_bytes(file, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no JSON: {error}") from None


def _route(data: object, where: str) -> Route:
    start = _geocode(_at(data, where, "start_place", "relocated_geocode"), f"{where}: start_place.relocated_geocode")
    corners = _at(data, where, "route_results", "geocode_list")
    if not isinstance(corners, list) or not 1 <= len(corners) <= _MAX_ROADS:
        raise ValueError(f"{where}: route_results.geocode_list: a list of 1 to {_MAX_ROADS} geocodes is expected")
    geocodes = [_geocode(c, f"{where}: route_results.geocode_list[{i}]") for i, c in enumerate(corners)]
    blocks = _blocks(_at(data, where, "milestone_info"), where)
    if len(blocks) != len(geocodes):
        raise ValueError(f"{where}: milestone_info has {len(blocks)} blocks for {len(geocodes)} geocodes")
    ends = [
        _milestone(b, g, f"{where}: milestone_info[{i}]") for i, (b, g) in enumerate(zip(blocks, geocodes, strict=True))
    ]
    heading = data.get("init_heading", 0) if isinstance(data, dict) else 0
    if not _within(heading, 360):
        raise ValueError(f"{where}: init_heading={_shown(heading)}: degrees from 0 to 360 are expected")
    if heading == 0:
        digest = hashlib.blake2b(repr((start, geocodes)).encode(), digest_size=2).digest()
        heading = int.from_bytes(digest, "big") % 360
    return Route(start, round(heading) % 360, tuple(ends))


_LINE = re.compile(r'"([a-z_]{1,64})"\s?:\s?"(.{0,1000})",?')
_SEEN = re.compile(rf"(?:The destination )?(.+) is on your ({'|'.join(SIDES)})")
_HEADING = re.compile(r"([0-9]{1,3}) \([a-z]{4,9}\)")
_DISTANCE = re.compile(r"([0-9]{1,6})(?:\.[0-9]{1,9})? meters")


def _blocks(text: object, where: str) -> list[dict[str, str]]:
    """The blocks of lines between a line "{" and a line "}"; the text is no JSON."""
    if not isinstance(text, str):
        raise ValueError(f"{where}: milestone_info: a text is expected")
    blocks: list[dict[str, str]] = []
    for line in text.splitlines():
        if line.strip() == "{":
            blocks.append({})
        elif (found := _LINE.fullmatch(line.strip())) and blocks:
            blocks[-1][found[1]] = found[2]
        elif line.strip() not in ("", "}", "},"):
            raise ValueError(f'{where}: milestone_info: the line {_shown(line)} is not of the form "key": "value",')
    return blocks


def _milestone(block: Mapping[str, str], geocode: Geocode, where: str) -> Milestone:
    turned = _HEADING.fullmatch(block.get("to_next_intersection_heading", ""))
    if not turned or int(turned[1]) > 360:
        raise ValueError(f'{where}: to_next_intersection_heading: a heading as "298 (northwest)" is expected')
    walked = _DISTANCE.fullmatch(block.get("distance", ""))
    if not walked or int(walked[1]) > _MAX_METRES:
        raise ValueError(f'{where}: distance: metres as "159 meters" are expected')
    text = block.get("landmarks", "No landmark nearby")
    if text == "No landmark nearby":
        return Milestone(geocode, int(turned[1]) % 360, int(walked[1]), None, None)
    seen = _SEEN.fullmatch(text)
    name = re.sub(r"[<>|]+", " ", seen[1]).strip() if seen else ""  # no tokens of a model in prompts
    if not seen or len(name) > _MAX_NAME or not name.isprintable() or not any(c.isalnum() for c in name):
        raise ValueError(
            f"{where}: landmarks={_shown(text)}: a name of {_MAX_NAME} signs or fewer, a letter among them, with "
            f'" is on your " and one '
            f"of {', '.join(SIDES)} is expected, or No landmark nearby"
        )
    return Milestone(geocode, int(turned[1]) % 360, int(walked[1]), name, seen[2])


def _at(data: object, where: str, *keys: str) -> Any:
    for depth, key in enumerate(keys, start=1):
        if not isinstance(data, dict) or key not in data:
            raise ValueError(f"{where}: {'.'.join(keys[:depth])} is missing")
        data = data[key]
    return data


def _geocode(data: object, where: str) -> Geocode:
    if isinstance(data, list) and len(data) == 2 and _within(data[0], 90) and _within(data[1], 180):
        return float(data[0]), float(data[1])
    raise ValueError(f"{where}={_shown(data)}: latitude and longitude in degrees are expected")


def _within(number: object, most: float) -> bool:
    """Whether it is a number from -most to most; not a number is not."""
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= most


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _eighth(heading: int) -> int:
    """The number of the nearest of eight directions, clockwise from 0."""
    return round(heading % 360 / 45) % 8
