"""One table of segment kinds: a task writes what it likes, and training, scoring and pages know it from the table."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adding import Adding, FakeLearner
from support.seeing import Seeing
from support.tiny import processor

from vlmreason import segments
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.data.formats import ExportSettings, records
from vlmreason.dialogue.build import build_dialogue, shorten
from vlmreason.dialogue.parse import kinds_of, split_response
from vlmreason.envs.revision import Revision
from vlmreason.evaluation.evaluate import evaluate
from vlmreason.models.contract import Generation, Prompt
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.report.pages import gallery, markup
from vlmreason.segments import KINDS, SEGMENT_IDS, VIEWS, Response, Segment, in_steps
from vlmreason.training.reinforced.objectives import token_weights

TASK = Seeing()
PROBLEM = TASK.sample("hard", "test", 0)
STATE = PROBLEM.state
WRITTEN = ["thought", "caption", "perception", "perception", "thought", "answer"]


def test_the_numbers_of_kinds_stay() -> None:
    """They stand in tensors and in what is logged, and index arrays that are as long as the table."""
    assert SEGMENT_IDS == {
        None: 0, "convert": 1, "thought": 2, "answer": 3, "caption": 4, "perception": 5, "condition": 6,
    }  # fmt: skip
    assert sorted(SEGMENT_IDS.values()) == list(range(len(KINDS) + 1))
    assert len({colour for kind in KINDS for colour in kind.colours}) == 2 * len(KINDS)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for kind in KINDS for colour in kind.colours)
    assert all(re.fullmatch("[a-z]+", kind.name) and kind.words for kind in KINDS)


def test_a_kind_that_is_not_in_the_table() -> None:
    with pytest.raises(ValueError, match=r"segment kind='capton': allowed are .*did you mean 'caption'"):
        Segment("capton", "a dog")


@pytest.mark.parametrize("view", VIEWS)
def test_any_kinds_several_times_with_labels(view: str) -> None:
    """The very segments go through the dialogue and are found again in the text of the response."""
    response = build_dialogue(TASK, PROBLEM, view).response
    assert [segment.kind for segment in response.segments] == ["convert"] * (view == "image_via_text") + WRITTEN
    assert [segment.label for segment in response.segments if segment.kind == "perception"] == ["top", "rest"]
    assert split_response(TASK, STATE, response.text) == response
    env = Revision(TASK)
    state = env.sample("hard", "test", 0).state
    assert build_dialogue(env, env.sample("hard", "test", 0), view).response == response
    assert split_response(env, state, response.text) == response
    assert env.expert(state) == TASK.response(STATE, "image").text


@pytest.mark.parametrize("view", VIEWS)
def test_the_loss_mask_decodes_to_each_segment(view: str) -> None:
    coder, dialogue = processor(), replace(build_dialogue(TASK, PROBLEM, view), image=None)
    encoded = coder.encode(dialogue)
    labels = coder.collate([encoded])["labels"][0]
    assert coder.decode(labels[labels != IGNORED].tolist()) == dialogue.response.text
    for kind in kinds_of(TASK):
        ids = [token for token, number in zip(encoded.input_ids, encoded.segments, strict=True)
               if number == SEGMENT_IDS[kind]]  # fmt: skip
        assert coder.decode(ids) == dialogue.response.text_of(kind)


def test_weights_of_generated_tokens() -> None:
    """Lambda for all that is not the answer, whatever its kind: equation 4.3."""
    coder, response = processor(), TASK.response(STATE, "image")
    ids = [*coder.coder.follow([], response.text)[0], coder.eos_id]
    encoded = coder.encode_generated(Prompt("?", None), ids, lambda text: split_response(TASK, STATE, text))
    found = torch.tensor(encoded.segments[-len(ids) :])
    assert {int(number) for number in found} == {SEGMENT_IDS[kind] for kind in WRITTEN}
    weights = token_weights(found, 0.25)
    num_answer = coder.count_tokens(TASK.answer(STATE)) + 1
    assert weights.tolist() == [0.25] * (len(ids) - num_answer) + [1.0] * num_answer


def test_responses_of_a_model() -> None:
    """What comes in another order, again or not at all is cut by its markers; a marker within another is none."""

    def cut(response: str) -> list[tuple[str, str, str]]:
        return [(s.kind, s.label, s.text) for s in split_response(TASK, STATE, response).segments]

    assert cut("See [a]: 1\nCaption: x\nhm\nSee [a]: 2\n") == [
        ("perception", "a", "See [a]: 1\n"),
        ("caption", "", "Caption: x\nhm\n"),
        ("perception", "a", "See [a]: 2\n"),
    ]
    assert cut("no marker") == [("thought", "", "no marker")]
    assert cut("Answer: 1\nCaption: late") == [("answer", "", "Answer: 1\nCaption: late")]
    assert cut("Caption: Caption: b") == [("caption", "", "Caption: "), ("caption", "", "Caption: b")]

    class Overlapping(Seeing):
        def markers(self) -> dict[str, re.Pattern[str]]:
            return {"caption": re.compile("See: "), "perception": re.compile("See|it"), "thought": re.compile("")}

    pieces = split_response(Overlapping(), STATE, "See: it. it").segments
    assert [(piece.kind, piece.text) for piece in pieces][:2] == [("caption", "See: "), ("perception", "it")]
    assert "".join(piece.text for piece in pieces) == "See: it. it"


FRAGMENTS = ("Caption: ", "See [top]: ", "See [", "]: ", "Think: ", "\n", "Answer: ", TASK.convert(STATE), "end\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=20).map("".join))
def test_nothing_of_a_response_is_lost(response: str) -> None:
    found = split_response(TASK, STATE, response)
    assert found.text == response and all(segment.text for segment in found.segments)
    assert {segment.kind for segment in found.segments} <= set(kinds_of(TASK))


def test_lengths_are_counted_per_kind(tmp_path: Path) -> None:
    """Those of a kind are added up; kinds that the task does not write are no columns."""
    assert kinds_of(TASK) == [kind.name for kind in KINDS if kind.name != "condition"]
    assert kinds_of(Adding()) == ["convert", "thought", "answer"]

    def reply(state, prompt: Prompt) -> Generation:
        return Generation(TASK.response(state, "image").text, 99, True)

    wanted = EvaluationSettings(levels=("hard",), views=("image",), num=3)
    cell = evaluate(FakeLearner(reply), TASK, wanted, tmp_path, {}, progress=False).cells[0]
    num_thought = 5 + 1 + 5 * 4  # of FakeLearner's tokens, which are words
    assert dict(cell.segment_tokens) == {
        "convert": 0, "caption": 3, "perception": 4 + 5, "thought": num_thought, "answer": 2,
    }  # fmt: skip
    assert cell.accuracy == 1.0 and cell.to_json()["tokens_perception"] == 9


def test_exported_rows_have_the_kinds_of_the_task(tmp_path: Path) -> None:
    settings = ExportSettings(PROBLEM.level, PROBLEM.split, PROBLEM.index + 1)
    row, plain = (json.loads(records(task, settings, tmp_path, PROBLEM.index)) for task in (TASK, Adding()))
    assert row["caption"] == "Caption: 5 numbers.\n" and row["perception"].count("See [") == 2
    assert row["convert"] == TASK.convert(STATE)
    assert not {"caption", "perception"} & plain.keys()


@pytest.mark.parametrize(
    ("kept", "first", "second"),
    [
        (1.0, "I look. I look again.\n", "Think: abcd"),
        (0.7, "", "Think: abcd"),
        (0.5, "", "Think: bcd"),
        (0.2, "", "Think: d"),
        (0.0, "", ""),
    ],
)
def test_several_thoughts_fade_in_the_order_in_which_they_are_written(kept: float, first: str, second: str) -> None:
    """The steps of all thoughts count as one list; the marker of a thought goes with its last step."""
    whole = Response(
        (
            in_steps("thought", ["I look. ", "I look again.\n"]),
            Segment("perception", "See [top]: 1\n", "top"),
            in_steps("thought", list("abcd"), "sum", "Think: "),
            Segment("answer", "Answer: 1"),
        )
    )
    found = shorten(whole, kept)
    thoughts = [segment for segment in found.segments if segment.kind == "thought"]
    assert [segment.text for segment in thoughts] == [text for text in (first, second) if text]
    assert [segment for segment in found.segments if segment not in thoughts] == [*whole.segments[1::2]]
    assert not second or thoughts[-1].label == "sum"
    assert shorten(found, 1.0) == found and (kept < 1 or found == whole)


def test_a_thought_without_steps_is_one_step() -> None:
    response = Response((Segment("thought", "all at once "), Segment("answer", "Answer: 1")))
    assert [shorten(response, kept).text for kept in (1.0, 0.6, 0.4)] == [response.text, response.text, "Answer: 1"]


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.4, 0.1])
def test_what_has_faded_is_found_in_the_text(kept: float) -> None:
    response = build_dialogue(TASK, PROBLEM, "image", kept).response
    assert split_response(TASK, STATE, response.text) == response
    assert response.text_of("caption") and len(response.segments) == len(WRITTEN) - (kept < 0.8)


def test_pages_show_each_kind_in_its_colour() -> None:
    page = gallery.page([TASK, Adding()], "nano", "train", 0, 1)
    for kind in (kind for kind in KINDS if kind.name in kinds_of(TASK)):
        light, dark = kind.colours
        assert f'<span class="kind {kind.name}" title="{kind.words}">{kind.name}</span>' in page
        assert f"--{kind.name}: {light};" in page and f"--{kind.name}: {dark};" in page
        assert f".kind.{kind.name} {{ background: var(--{kind.name}); }}" in page
    assert '<span class="kind perception" title="top">See [top]: ' in page
    alone = gallery.page([Adding()], "nano", "train", 0, 1)
    assert '"kind thought"' in alone and '"kind caption"' not in alone, "the key is of what is on the page"
    hostile = Response((Segment("perception", "<b>", '"><script>'),))
    assert markup.response(hostile) == (
        '<span class="kind perception" title="&quot;&gt;&lt;script&gt;">&lt;b&gt;</span>'
    )


ONE_ROW = """
import pathlib, sys, types
import vlmreason

path = pathlib.Path(vlmreason.__file__).parent / "segments.py"
row = '    Kind("gesture", 6, ("#f0f0f0", "#101010"), "where it points"),\\n    Kind(THOUGHT'
source = path.read_text()
assert source.count("    Kind(THOUGHT") == 1
module = types.ModuleType("vlmreason.segments")
sys.modules["vlmreason.segments"] = module
exec(compile(source.replace("    Kind(THOUGHT", row), str(path), "exec"), vars(module))

import re, torch
from support.adding import Adding
from support.tiny import processor
from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import kinds_of, split_response
from vlmreason.report.pages import gallery
from vlmreason.studies import measures
from vlmreason.training.reinforced.objectives import token_weights
from vlmreason.training.supervised.sft import SEGMENT_NAMES, segment_sums

class Pointing(Adding):
    def response(self, state, view):
        return module.Response((module.Segment("gesture", "There: ."), *super().response(state, view).segments[-1:]))
    def markers(self):
        return {"gesture": re.compile("There:")}

task = Pointing()
problem = task.sample("hard", "test", 0)
dialogue = build_dialogue(task, problem, "text")
assert split_response(task, problem.state, dialogue.response.text) == dialogue.response
assert "gesture" in kinds_of(task) and SEGMENT_NAMES[6] == "gesture"
numbers = torch.tensor([number for number in processor().encode(dialogue).segments if number])
assert set(numbers.tolist()) == {3, 6}
assert token_weights(numbers, 0.5).unique().tolist() == [0.5, 1.0]
assert segment_sums(torch.ones(len(numbers)), numbers)[6].tolist() == [int((numbers == 6).sum())] * 2
assert "--gesture: #f0f0f0" in gallery.page([task], "nano", "train", 0, 1)
assert measures.find("length:gesture").words == "tokens of gesture"
"""


@pytest.mark.slow
def test_a_further_kind_is_one_row() -> None:
    """With a row more in the table, and nothing else changed."""
    places = [str(Path(segments.__file__).parents[1]), str(Path(__file__).parent)]
    program = f"import sys; sys.path[:0] = {places!r}\n{ONE_ROW}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
