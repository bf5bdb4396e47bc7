"""Routes: written and read again, real geometry, and files that lie."""

import json
import math
import random

import numpy as np
import pytest
from PIL import Image

from vlmreason.envs.worlds.panoramas import draw_views, perspective, read_panoramas, routes_in_view, views_of_files
from vlmreason.envs.worlds.routes import (
    COMPASS,
    NAMES,
    PICKLE_HINT,
    SIDES,
    Milestone,
    Point,
    Route,
    compass,
    rail,
    read_routes,
    sample_route,
    turn_label,
    write_routes,
)

PUBLISHED = {
    "dest_place": {"name": "Corner Shop", "geocode": [40.7228, -73.998]},
    "start_place": {"name": "Somewhere", "relocated_geocode": [40.72416, -73.99762], "n_reviews": 3},
    "route_results": {
        "geocode_list": [[40.72423, -73.99779], [40.72302, -73.9988], [40.72271, -73.9981]],
        "distance_list": [16, 159, 70],
        "landmark_list": [{"name": "Plain St"}, None],
    },
    "init_heading": 0,
    "instruction": "First, turn left and so on.",
    "milestone_info": '\n{\n"intersection_idx": "1",\n"landmarks": "Joe\'s "Best" {Pizza} is on your left front",\n'
    '"distance": "16 meters",\n"human_heading": "0",\n"to_next_intersection_heading": "298 (northwest)",\n}\n'
    '\n{\n"intersection_idx": "2",\n"landmarks": "No landmark nearby",\n"distance": "159 meters",\n'
    '"human_heading": "298",\n"to_next_intersection_heading": "212 (southwest)",\n}\n'
    '\n{\n"intersection_idx": "3",\n"landmarks": "The destination Corner Shop is on your left",\n'
    '"distance": "70 meters",\n"human_heading": "212",\n"to_next_intersection_heading": "120 (southeast)",\n}\n',
}


def synthetic(num=200, straight=5, diagonals=True):
    rng = random.Random(5)
    return [sample_route(rng, (1, 6), straight, NAMES["full"], diagonals) for _ in range(num)]


def save(tmp_path, data):
    file = tmp_path / "route_infos.json"
    file.write_text(json.dumps(data))
    return file


def test_routes_survive_their_file(tmp_path):
    routes = synthetic()
    write_routes(tmp_path / "town" / "route_infos.json", routes)
    assert list(read_routes(tmp_path / "town")) == routes == list(read_routes(tmp_path))
    assert list(read_routes(tmp_path / "town" / "route_infos.json")) == routes


def test_synthetic_roads_lead_where_they_say():
    for route in synthetic():
        where = route.start
        for end in route.milestones:
            north = (end.geocode[0] - where[0]) * 111_320
            east = (end.geocode[1] - where[1]) * 111_320 * math.cos(math.radians(where[0]))
            assert math.hypot(north, east) == pytest.approx(end.distance, abs=0.5)
            assert compass(end.heading) == COMPASS[round(math.degrees(math.atan2(east, north)) % 360 / 45) % 8]
            where = end.geocode


@pytest.mark.parametrize("wrapped", [[[PUBLISHED], 1], [PUBLISHED], PUBLISHED])
def test_a_published_route_is_read(tmp_path, wrapped):
    (route,) = read_routes(save(tmp_path, wrapped))
    assert route.start == (40.72416, -73.99762) and 0 <= route.heading < 360
    assert [(m.heading, m.distance, m.landmark, m.side) for m in route.milestones] == [
        (298, 16, 'Joe\'s "Best" {Pizza}', "left front"),
        (212, 159, None, None),
        (120, 70, "Corner Shop", "left"),
    ]
    assert read_routes(save(tmp_path, wrapped)) == (route,)


def test_a_given_start_heading_is_kept(tmp_path):
    for given, read in ((90, 90), (360, 0), (12.6, 13)):
        assert read_routes(save(tmp_path, {**PUBLISHED, "init_heading": given}))[0].heading == read


def test_names_bring_no_tokens_into_prompts(tmp_path):
    data = {**PUBLISHED, "milestone_info": PUBLISHED["milestone_info"].replace("Corner Shop", "Shop <image>|<|end|>")}
    assert read_routes(save(tmp_path, data))[0].milestones[-1].landmark == "Shop  image end"


def changed(*keys, value):
    """The published route with one place replaced, or taken out (value None)."""
    data = json.loads(json.dumps(PUBLISHED))
    at = data
    for key in keys[:-1]:
        at = at[key]
    if value is None:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return data


INFO = PUBLISHED["milestone_info"]
HOSTILE = [
    (changed("start_place", value=None), "start_place"),
    (changed("start_place", "relocated_geocode", value=None), "start_place.relocated_geocode"),
    (changed("start_place", "relocated_geocode", value=[91, 0]), "relocated_geocode"),
    (changed("start_place", "relocated_geocode", value=[10**400, 0]), "relocated_geocode"),
    (changed("start_place", "relocated_geocode", value=[float("nan"), 0]), "relocated_geocode"),
    (changed("start_place", "relocated_geocode", value=[True, 0]), "relocated_geocode"),
    (changed("start_place", "relocated_geocode", value={}), "relocated_geocode"),
    (changed("route_results", value=[]), "route_results"),
    (changed("route_results", "geocode_list", value=[]), "geocode_list"),
    (changed("route_results", "geocode_list", value=[[0, 0]] * 2), "milestone_info"),
    (changed("route_results", "geocode_list", value=[[0, 0]] * 100_000), "geocode_list"),
    (changed("init_heading", value="north"), "init_heading"),
    (changed("init_heading", value=float("inf")), "init_heading"),
    (changed("milestone_info", value=7), "milestone_info"),
    (changed("milestone_info", value=INFO + "import os\n"), "milestone_info"),
    (
        changed("milestone_info", value=INFO.replace("298 (northwest)", "999 (northwest)")),
        "to_next_intersection_heading",
    ),
    (changed("milestone_info", value=INFO.replace("298 (northwest)", "-5")), "to_next_intersection_heading"),
    (changed("milestone_info", value=INFO.replace("159 meters", "far")), "distance"),
    (changed("milestone_info", value=INFO.replace("159 meters", "999999 meters")), "distance"),
    (changed("milestone_info", value=INFO.replace("left front", "north")), "landmarks"),
    (changed("milestone_info", value=INFO.replace("Corner", "C" * 500)), "landmarks"),
    (changed("milestone_info", value=INFO.replace("Corner", "C\x1b[2J")), "landmarks"),
    (changed("milestone_info", value=INFO.replace("Corner Shop", "***")), "landmarks"),
    ([], "routes are expected"),
    ([1], "start_place"),
    ("text", "start_place"),
    (None, "start_place"),
]


@pytest.mark.parametrize(("data", "named"), HOSTILE)
def test_what_is_wrong_is_named_with_its_file(tmp_path, data, named):
    file = save(tmp_path, data)
    with pytest.raises(ValueError, match=named) as caught:
        read_routes(file)
    assert str(file) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"[" * 100_000, b"9" * 10_000, b'{"a": ', b"\xff\xfe"])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "route_infos.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"route_infos\.json"):
        read_routes(tmp_path)


def test_a_folder_without_routes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"route_infos\.json is expected"):
        read_routes(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        read_routes(tmp_path / "nowhere")


def test_turn_labels_go_the_short_way_round():
    assert turn_label(350, 10) == "slightly right" and turn_label(10, 350) == "slightly left"
    assert turn_label(315, 45) == "right" and turn_label(0, 270) == "left" and turn_label(90, 270) == "right"
    for before in range(360):
        for change in range(-179, 181):
            label = turn_label(before, (before + change) % 360)
            assert label.endswith("right") == (change >= 0)
            assert label.startswith("slightly") == (abs(change) <= 45)


def test_compass_points_wrap_around():
    assert [compass(h) for h in (0, 350, 359, 338, 298, 120)] == [
        "north", "north", "north", "north", "northwest", "southeast",
    ]  # fmt: skip


def test_a_rail_has_a_turn_and_stops_on_every_road():
    route = synthetic(1)[0]
    for straight in (1, 3, 100):
        points = rail(route, straight)
        walked = [[p for p in points if p.turn is None and not p.last and p.instruction == 2 * i + 1]
                  for i in range(len(route.milestones))]  # fmt: skip
        assert [len(road) for road in walked] == [min(straight, m.distance // 20) for m in route.milestones]
        assert [p.turn for p in points if p.turn is not None] == [m.heading for m in route.milestones]
        assert [p.last for p in points] == [False] * (len(points) - 1) + [True]
        assert all(p.landmark is None for road in walked for p in road)


def test_a_landmark_is_drawn_where_it_is():
    point = Point((40.0, -73.0), 90, 1)
    plain = draw_views(point, "home", (144, 144), 9)
    centres = {"front": (36, 36), "right front": (36, 60), "right": (36, 108), "right behind": (36, 132),
               "behind": (108, 36), "left behind": (108, 84), "left": (108, 108), "left front": (36, 12)}  # fmt: skip
    for side in SIDES:
        shown = draw_views(Point((40.0, -73.0), 90, 1, "Bank", side), "home", (144, 144), 9)
        rows, cols = np.nonzero((shown != plain).any(axis=2))
        assert abs(rows.mean() - centres[side][0]) < 3 and abs(cols.mean() - centres[side][1]) < 3
        assert rows.max() - rows.min() < 24 and cols.max() - cols.min() < 24
        assert rows.min() // 24 == rows.max() // 24 and cols.min() // 24 == cols.max() // 24  # one patch of 24 pixels


def test_looks_differ_everywhere_but_in_the_road():
    point = Point((40.0, -73.0), 90, 1, "Bank", "left")
    home, away = (draw_views(point, look, (144, 144), 9) for look in ("home", "away"))
    assert (home != away).any(axis=2).mean() > 0.8


def panorama():
    """Each of 8 headings has a colour of its own; the middle of the picture is at 180 degrees."""
    cols = np.arange(720)
    heading = (cols / 720 * 360 + 0.25) % 360
    number = np.round(heading / 45).astype(int) % 8
    colors = np.array([[30 * i, 255 - 30 * i, 100] for i in range(8)], dtype=np.uint8)
    return np.repeat(colors[number][None], 360, axis=0), colors


def test_a_perspective_shows_what_lies_in_its_heading():
    picture, colors = panorama()
    for heading in range(0, 360, 45):
        view = perspective(picture, heading, 60, 40)
        assert view.shape == (40, 60, 3)
        assert (view[20, 30] == colors[heading // 45]).all()
        assert (view[20, 59] == colors[(heading // 45 + 1) % 8]).all()
        assert (view[20, 0] == colors[(heading // 45 - 1) % 8]).all()


@pytest.fixture
def town(tmp_path):
    """A folder of one route with panoramas at its corners, as they are published but for the mapping."""
    save(tmp_path, [[PUBLISHED], 1])
    picture, _ = panorama()
    folder = tmp_path / "street_views"
    folder.mkdir()
    corners = [PUBLISHED["start_place"]["relocated_geocode"], *PUBLISHED["route_results"]["geocode_list"]]
    for i in range(len(corners)):
        Image.fromarray(picture).save(folder / f"id_{i}.jpg", quality=95)
        (folder / f"id_{i}.metadata.json").write_text('{"rotation": 90.0}')
    mapping = [[*corner, f"id_{i}"] for i, corner in enumerate(corners)]
    (tmp_path / "gps_pano_mapping.json").write_text(json.dumps(mapping))
    return tmp_path


def test_street_views_of_files(town):
    panoramas = read_panoramas(town)
    route = read_routes(town)[0]
    assert routes_in_view([route], panoramas, town) == (route,)
    _, colors = panorama()
    point = Point(route.start, 45, 0)
    views = views_of_files(point, panoramas, (120, 80))
    assert views.shape == (80, 120, 3)
    for i, (row, col) in enumerate(((20, 30), (20, 90), (60, 30), (60, 90))):
        expected = colors[((45 + 90 * i + 90) // 45) % 8]
        assert np.abs(views[row, col].astype(int) - expected).max() < 12  # JPEG


def test_routes_without_street_views_are_left_out(town):
    panoramas, route = read_panoramas(town), read_routes(town)[0]
    far = Route((0.0, 0.0), 0, (Milestone((0.0, 0.001), 90, 100, "Pub", "left"),))
    with pytest.warns(UserWarning, match="1 of 2 routes"):
        assert routes_in_view([far, route], panoramas, town) == (route,)
    with pytest.raises(ValueError, match="no route has a street view"):
        routes_in_view([far], panoramas, town)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "", "a" * 200, "a.b", 7, None])
def test_names_of_pictures_stay_in_the_folder(town, name):
    (town / "gps_pano_mapping.json").write_text(json.dumps([[0, 0, name]]))
    with pytest.raises(ValueError, match="gps_pano_mapping"):
        read_panoramas(town)


def test_a_picture_that_leads_out_of_its_folder_is_refused(town):
    outside = town / "outside.jpg"
    (town / "street_views" / "id_0.jpg").rename(outside)
    (town / "street_views" / "id_0.jpg").symlink_to(outside)
    with pytest.raises(ValueError, match="out of its folder"):
        views_of_files(Point(read_routes(town)[0].start, 0, 0), read_panoramas(town), (24, 24))


@pytest.mark.parametrize("spoil", ["picture", "metadata", "missing"])
def test_a_spoiled_picture_is_named(town, spoil):
    folder = town / "street_views"
    if spoil == "picture":
        (folder / "id_0.jpg").write_bytes(b"no picture")
    elif spoil == "metadata":
        (folder / "id_0.metadata.json").write_text('{"rotation": "x"}')
    else:
        (folder / "id_0.jpg").unlink()
    with pytest.raises(ValueError, match="id_0"):
        views_of_files(Point(read_routes(town)[0].start, 0, 0), read_panoramas(town), (24, 24))


def test_a_pickle_is_never_read(town):
    (town / "gps_pano_mapping.json").rename(town / "gps_pano_mapping.pkl")
    with pytest.raises(ValueError, match="pickle") as caught:
        read_panoramas(town)
    assert PICKLE_HINT in str(caught.value)
