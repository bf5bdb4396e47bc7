"""The report of a made-up study: everything is there, leads somewhere, and hostile records stay text."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from support.studies import ARTIFACT, make_record, use_study, write_study

from vlmreason import places
from vlmreason.assembly import build, compose
from vlmreason.assembly.compose import resolve
from vlmreason.commands import report
from vlmreason.pictures import png_bytes
from vlmreason.report.figures import draw as drawing
from vlmreason.report.pages import content, markdown, markup
from vlmreason.report.pages.examples import examples
from vlmreason.scale import Scale
from vlmreason.segments import Response, Segment
from vlmreason.structure import structure
from vlmreason.studies.records import Record
from vlmreason.tasks.base import Task

HOSTILE = (
    "</pre></article><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)> ```\n# no head\n```"
)
CLAIMS = [
    {"id": "images", "text": "Mix is above Image", "place": "section 1", "experiment": "made_up/fig1",
     "at": {"panel": "as image", "x": "last"}, "left": {"series": "Mix"}, "relation": "above",
     "right": {"series": "Image"}, "tried": "nothing <yet>"},
    {"id": "later", "text": "Nobody knows", "place": "section 2", "experiment": "made_up/table2",
     "left": {"panel": "as image", "series": "Mix", "x": "first"}, "relation": "above", "bound": 5},
]  # fmt: skip
VOID = {"meta", "img", "br"}


@dataclass
class Parsed(HTMLParser):
    """What a browser would find: elements with their attributes, scripts, and the text."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


def parse(path: Path) -> Parsed:
    parsed = Parsed()
    parsed.feed(path.read_text(encoding="utf-8"))
    parsed.close()
    assert not parsed.open
    return parsed


def made_up(folder: Path) -> Path:
    """A study of a figure, a table without a run, and two claims."""
    table = {**ARTIFACT, "title": "No run yet", "place": "table 2, appendix B", "draw": "table",
             "set": {"task": "grid_navigation"}}  # fmt: skip
    write_study(folder, fig1={**ARTIFACT, "place": "figure 1, section 3"}, table2=table)
    (folder / "made_up" / "claims.yaml").write_text(yaml.safe_dump(CLAIMS))
    return folder


def write_records(folder: Path, hostile: str = "") -> list[str]:
    """Records of mix with two seeds and of image with one, at 20 examples; returns their names."""
    composer, names = compose.Composer(), []
    for supervision, seed, marks in (("mix", 0, "1101"), ("mix", 1, "1111"), ("image", 0, "0100")):
        settings = {"scale": "nano", "task": "table_readout", "supervision": supervision, "scale.num_examples": 20}
        config = composer.config({**settings, "seed": seed})
        name = f"{supervision}-{seed}{hostile}"
        record = make_record(
            {("hard", "image"): marks, ("hard", "text"): marks}, seed=seed, run=name, config=config,
            cost={"seconds": 60},
        )  # fmt: skip
        evaluation = record.data["evaluations"][0]
        evaluation["identity"] = {**build.task_identity(config), "task": "table_readout", "task_version": 1}
        for cell in evaluation["cells"]:
            cell["row"] |= {"ci_low": 0.1, "ci_high": 0.9}
            cell["examples"] = [
                {"index": index, "right": mark == "1", "response": f"(1,1) 2 {hostile} Answer: 3 Sum: 3"}
                for index, mark in enumerate(marks)
            ]
        path = folder / "made_up" / "results" / "nano" / f"{supervision}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record.data))
        names.append(name)
    return names


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """`write(folder)`: the page of the study in a folder, made by the command; with draw=False without figures."""

    def write(folder: Path, *words: str, draw: bool = False) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            use_study(patch, folder)
            if not draw:
                patch.setattr(drawing, "draw", lambda *given: [])
            patch.setattr("sys.argv", ["vlmreason", "report", *words])
            given = ["study=made_up", f"out={folder / 'out'}", f"runs={folder / 'none'}", *words]
            return report.run(resolve(hydra_compose("report", given), given))

    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        yield write


@dataclass(frozen=True)
class Made:
    path: Path
    runs: list[str]
    page: Parsed

    @property
    def markdown(self) -> str:
        return self.path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Made:
    folder = made_up(tmp_path_factory.mktemp("study"))
    runs = write_records(folder)
    (folder / "made_up" / "results" / "nano" / "broken.json").write_text('{"format": 1')
    path = write(folder, "formats=[png,pdf]", draw=True)
    return Made(path, runs, parse(path))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Made:
    folder = made_up(tmp_path_factory.mktemp("hostile"))
    runs = write_records(folder, hostile=HOSTILE)
    path = write(folder)
    return Made(path, runs, parse(path))


def test_the_page_has_every_artifact_claim_and_run(made: Made) -> None:
    ids = made.page.values("id")
    assert {"fig1", "table2", "claim-images", "claim-later", *(f"run-{run}" for run in made.runs)} <= set(ids)
    assert len(ids) == len(set(ids))
    for words in ("An artifact", "No run yet", "Mix is above Image", "nothing <yet>", "no runs", *made.runs):
        assert words in made.page.text, words
    assert "vlmreason sweep experiment=made_up/table2" in made.page.text
    assert ids.index("fig1") < ids.index("table2")


def test_every_link_leads_somewhere(made: Made) -> None:
    targets = {f"#{id}" for id in made.page.values("id")}
    links = made.page.values("href")
    assert "#run-mix-0" in links and set(links) <= targets


def test_a_cell_leads_to_its_runs_and_has_the_papers_number(made: Made) -> None:
    row = re.search(r"<tr><th>Mix</th>(.*?)</tr>", made.path.read_text(), re.S)
    assert row
    cells = re.findall(r"<td.*?</td>", row.group(1), re.S)
    assert len(cells) == 4, "two panels, two sizes"
    assert "missing" in cells[0] and "no run" in cells[0]
    for words in ('href="#run-mix-0"', 'href="#run-mix-1"', 'title="mix-0, mix-1"', "paper 64", "<b>87.5</b>"):
        assert words in cells[1], words
    assert "paper" not in cells[3]


def test_nothing_is_loaded_from_elsewhere(made: Made, hostile: Made) -> None:
    for one in (made, hostile):
        sources = one.page.values("src")
        assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
        assert all(link.startswith("#") for link in one.page.values("href"))
        text = one.path.read_text()
        assert "url(" not in text and "@import" not in text
        tags = {tag for tag, _ in one.page.elements}
        assert not tags & {"link", "iframe", "object", "embed", "form", "base"}
        digest = base64.b64encode(hashlib.sha256(one.page.scripts[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in text


def test_hostile_records_stay_text(hostile: Made) -> None:
    assert len(hostile.page.scripts) == 1 and "alert" not in hostile.page.scripts[0]
    assert not [value for attribute in ("onerror", "onclick", "onload") for value in hostile.page.values(attribute)]
    assert "<script>alert(1)</script>" in hostile.page.text
    assert hostile.page.values("href") and all(" " not in link for link in hostile.page.values("href"))


def test_hostile_records_stay_text_in_markdown(hostile: Made) -> None:
    outside, fence = [], ""
    for line in hostile.markdown.splitlines():
        ticks = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif ticks:
            fence = ticks.group()
        else:
            outside.append(re.sub(r"`[^`]*`", "", line))
    assert not fence
    assert not [line for line in outside if "alert" in line or line.startswith("# no head")]
    assert "alert(1)" in hostile.markdown


def test_damaged_records_are_named_and_passed_over(made: Made) -> None:
    assert "Damaged and passed over" in made.page.text and "broken.json" in made.page.text
    assert "broken.json" in made.markdown


def test_a_record_without_what_a_run_has_is_named(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = made_up(tmp_path)
    write_records(folder)
    path = folder / "made_up" / "results" / "nano" / "mix-0.json"
    data = json.loads(path.read_text())
    del data["evaluations"][0]["cells"][0]["row"]["ci_low"]
    path.write_text(json.dumps(data))
    page = parse(write(folder))
    assert "mix-0.json: damaged record (KeyError: 'ci_low')" in page.text
    assert "run-mix-0" not in page.values("id") and "run-mix-1" in page.values("id")


def test_without_any_record(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = made_up(tmp_path)
    path = write(folder)
    page = parse(path)
    assert "There are none yet." in page.text and "0 hold, 0 fail, 0 not decided, 2 without runs." in page.text
    assert "vlmreason sweep experiment=made_up/fig1" in page.text
    assert "examples" not in page.values("id")
    paper = parse(write(folder, "scale=paper"))
    assert "vlmreason sweep experiment=made_up/fig1 scale=paper" in paper.text


def test_a_study_that_is_not_there(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"study=made_down: no such study; there are made_up"):
        write(made_up(tmp_path), "study=made_down")
    with pytest.raises(ValueError, match=r"formats=\['pdf'\]: png is on the page"):
        write(tmp_path, "formats=[pdf]")


def test_markdown_has_the_same_with_pictures_beside_it(made: Made) -> None:
    for words in (
        "### Figure 1: An artifact",
        "### Table 2: No run yet",
        "| Mix is above Image |",
        "87.5 (",
        "`mix-0`",
        "`image-0`",
    ):
        assert words in made.markdown, words
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", made.markdown)
    assert any(picture.endswith("fig1.png") for picture in pictures)
    assert any("/examples/table_readout-hard-test-0" in picture for picture in pictures)
    assert all((made.path.parent / picture).read_bytes()[:4] == b"\x89PNG" for picture in pictures)
    assert (made.path.parent / "figures" / "made_up-nano" / "fig1.pdf").is_file()


def nano_task() -> Task[Any]:
    scale = yaml.safe_load((places.conf_dir() / "scale" / "nano.yaml").read_text())
    return build.load_task("table_readout", structure(Scale, scale))


def example_records(responses: Mapping[str, list[dict[str, Any]]]) -> list[Record]:
    """A record of each strategy with these responses on hard images."""
    records = []
    for number, (strategy, kept) in enumerate(responses.items()):
        config = {"task": {"name": "table_readout"}, "supervision": {"name": strategy}, "seed": 0}
        record = make_record({("hard", "image"): "1"}, run=f"run {number}", config=config)
        record.data["evaluations"][0]["cells"][0]["examples"] = kept
        records.append(Record(record.data, record.path))
    return records


def kept(index: int, right: bool, response: str = "Answer: 1") -> dict[str, Any]:
    return {"index": index, "right": right, "response": response}


def test_examples_show_problems_on_which_strategies_differ_first() -> None:
    task = nano_task()
    records = example_records(
        {"mix": [kept(0, True), kept(4, True), kept(7, False)], "image": [kept(0, True), kept(7, False), kept(9, True)]}
    )
    found = examples(records, lambda record, evaluation: task)
    assert [example.id.rpartition("-")[2] for example in found] == ["0", "7"], "9 and 4 show nothing new"
    first, problem = found[0], task.sample("hard", "test", 0)
    assert first.picture == png_bytes(task.draw(problem.state))
    assert first.prompts == {"image": task.prompt(problem.state, "image")}
    assert first.expected["image"].text == "".join(task.thought(problem.state)) + task.answer(problem.state)
    assert [(answer.strategy, answer.right) for answer in first.answers] == [("mix", True), ("image", True)]


def test_answers_are_compared_with_those_of_their_kind() -> None:
    """What converts is held against the conversion, what does not think against the answer alone."""
    task = nano_task()
    state = task.sample("hard", "test", 0).state
    thought, answer = "".join(task.thought(state)), task.answer(state)
    direct, converting = thought + answer, f"{task.convert(state)}\n{task.text(state)}\n{thought}{answer}"
    spoiled = direct.replace("Answer:", "Answer: 77", 1)
    records = example_records(
        {"a": [kept(0, True, direct)], "b": [kept(0, True, converting)], "c": [kept(0, True, answer)],
         "d": [kept(0, False, spoiled)], "e": [kept(0, True, thought.strip())],
         "f": [kept(0, False, "no idea")], "g": [kept(0, False, direct)]}
    )  # fmt: skip
    (example,) = examples(records, lambda record, evaluation: task)
    marks = {one.strategy: one for one in example.answers}
    assert [(marks[name].mark, marks[name].missing) for name in "abc"] == [(None, None)] * 3
    assert marks["d"].mark is not None and spoiled[slice(*marks["d"].mark)] == "77"
    assert marks["e"].mark is None and marks["e"].missing == "Answer:"
    assert "answer_list 1" in marks["a"].said and "unparsed" not in marks["a"].said
    assert marks["f"].said.startswith("unparsed; ") and "trace_list 0" in marks["f"].said
    assert marks["g"].said == "", "a response that was cut for the record was judged as a whole"


def test_a_problem_that_cannot_be_made_again_says_why() -> None:
    def refuse(record: Record, evaluation: Any) -> Any:
        raise ValueError("problems of version 9")

    (example,) = examples(example_records({"mix": [kept(0, True), {"index": "x"}]}), refuse)
    assert example.note == "not made again: problems of version 9" and not example.picture
    assert [answer.response.text for answer in example.answers] == ["Answer: 1"]


def test_a_mark_may_lie_in_two_segments() -> None:
    response = Response((Segment("thought", "a <b"), Segment("answer", "c> d")))
    assert markup.response(response, (2, 6)) == (
        '<span class="kind thought">a <mark>&lt;b</mark></span><span class="kind answer"><mark>c&gt;</mark> d</span>'
    )


def test_the_order_is_that_of_the_paper() -> None:
    places = ["figure 3, section 3", "figure 5, section 4", "figure 6, sections 4.2 and 4.3", "table 10, section 4.3",
              "figure 7, section 5.1", "table 7, appendix F.3", "figure 13, appendix G.1", "table 8, appendix G.2",
              "figure 27, appendix I.9", "somewhere"]  # fmt: skip
    assert sorted(places[5:] + places[:5], key=content.paper_order) == places


def test_settings_of_runs_that_are_not_as_the_others() -> None:
    def config(seed: int, **task: Any) -> dict[str, Any]:
        return {"task": {"name": "t", **task}, "supervision": {"name": "mix"}, "seed": seed}

    configs = [config(0, trace="a"), config(1, trace="a"), config(2, trace="b", more=[1])]
    records = [make_record({}, run=str(number), config=one) for number, one in enumerate(configs)]
    assert content.unusual(records) == {"0": "", "1": "", "2": "task.trace=b, task.more=[1]"}


def test_code_in_markdown() -> None:
    assert markdown.code("a`b|c\nd") == "`a b c d`" and markdown.code("") == "` `"
    assert markdown.block("x\n````\ny") == ["`````text", "x", "````", "y", "`````"]


def test_versions_and_machines_are_told(made: Made) -> None:
    assert f"{'a' * 12} (3)" in made.page.text and "a CPU" in made.page.text


def test_the_ledger_of_a_readme_is_brought_up_to_date(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = made_up(tmp_path / "study")
    write_records(folder)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- ledger made_up -->\noutdated\n<!-- end of ledger -->\nafter\n")
    write(folder, f"readme={readme}")
    text = readme.read_text()
    assert text.startswith("before\n<!-- ledger made_up -->\n| claim |")
    assert text.endswith("<!-- end of ledger -->\nafter\n")
    assert "Mix is above Image" in text and "outdated" not in text
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="are expected in the text"):
        write(folder, f"readme={readme}")
