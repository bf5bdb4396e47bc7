"""The judge of labelled pictures: own labels score, every two are told apart, another set's labels never score."""

import itertools
import random
import re
import string
from pathlib import Path

import pytest

from vlmreason.tasks.images.judge import CATEGORIES, Judge, words
from vlmreason.tasks.images.labels import CIFAR100, DIGITS, LABELS, NUMBER_WORDS, SYNONYMS

ALL = tuple(label for labels in LABELS.values() for label in labels)
JUDGES = {name: Judge(labels, ALL) for name, labels in LABELS.items()}
OWN = [(name, label) for name, labels in LABELS.items() for label in labels]


@pytest.mark.parametrize("name", LABELS)
def test_every_wording_of_a_label_is_right(name):
    for label in LABELS[name]:
        spoken = label.replace("_", " ")
        plural = [re.sub(r"(?<=[fl])y$", "ie", spoken) + "s"] if spoken[-1] not in "0123456789sxh" else []
        for said in (label, spoken.upper(), f"Answer: {spoken}.", f"The picture shows a {spoken}", *plural):
            found = JUDGES[name](said, label)
            assert (found.category, found.named, found.right_named) == ("correct", (label,), True), said
        assert JUDGES[name](f"a blurred {spoken} by night", label).category == "correct_verbose"
        assert JUDGES[name].nearest(spoken) == label


@pytest.mark.parametrize("name", LABELS)
def test_every_two_labels_are_told_apart(name):
    for one, other in itertools.permutations(LABELS[name], 2):
        assert JUDGES[name](one.replace("_", " "), other).category == "incorrect"
    for one, other in itertools.pairwise(LABELS[name]):
        assert JUDGES[name](f"{one} or {other}", one).category == "intrinsic"


def test_a_label_of_another_set_never_scores():
    for (name, gold), other in itertools.product(OWN, ALL):
        if words(other) in {words(label) for label in LABELS[name]}:
            continue
        assert JUDGES[name](f"{gold} is {other}", gold).category == "extrinsic", (name, gold, other)


@pytest.mark.parametrize(
    ("labels", "said", "gold", "category"),
    [
        (("truck", "pickup_truck"), "a pickup truck", "truck", "incorrect"),
        (("truck", "pickup_truck"), "a pickup truck", "pickup_truck", "correct"),
        (("ray", "x-ray"), "an x ray", "ray", "incorrect"),
        (("ray", "x-ray"), "manta ray", "ray", "correct_verbose"),
        (("dog", "African hunting dog"), "African hunting dogs", "dog", "incorrect"),
        (("dog", "cat"), "hotdog", "dog", "extrinsic"),
    ],
)
def test_the_longest_label_counts(labels, said, gold, category):
    assert Judge(labels)(said, gold).category == category


def test_numbers_in_words_are_digits_where_digits_are_asked():
    for word, digit in NUMBER_WORDS.items():
        assert JUDGES["digits"](f"The number is {word}.", digit).category == "correct"
    assert JUDGES["things10"]("It is one cat", "cat").category == "correct_verbose"
    assert JUDGES["things10"]("The airplane is 8", "airplane").category == "extrinsic"
    assert JUDGES["digits"]("78", "7").category == "extrinsic"


def test_synonyms_stand_for_labels_that_are_looked_for():
    assert JUDGES["cifar10"]("a car", "automobile").category == "correct"
    for other, label in SYNONYMS.items():
        for name, labels in LABELS.items():
            if label in labels and words(other) not in map(words, ALL):
                assert JUDGES[name](other, label).category == "correct", (name, other)


def test_labels_that_differ_in_case_alone_are_refused():
    with pytest.raises(ValueError, match="'dog' and 'Dog'"):
        Judge(("dog", "cat", "Dog"))
    with pytest.raises(ValueError, match="letters or digits"):
        Judge(("dog", "--"))
    with pytest.raises(ValueError, match="'hores': not one of the set"):
        JUDGES["cifar10"]("horse", "hores")


def test_nothing_is_unparsed_and_anything_else_is_beside_the_question():
    for said in ("", " \n", "?!", "a the"):
        assert JUDGES["digits"](said, "3").category == "unparsed"
    assert JUDGES["digits"]("a street with signs", "3").category == "extrinsic"


def test_strings_of_any_kind_are_judged():
    rng = random.Random(0)
    pieces = [*DIGITS, *CIFAR100, *string.printable, "\u0667", "\ud800", "\U0001f431", "Answer:", "sses", "xes "]
    for _ in range(10_000):
        said = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        found = JUDGES["cifar100"](said, "apple")
        assert found.category in CATEGORIES and found.nearest in CIFAR100
        assert found.right_named or found.category not in ("correct", "correct_verbose")


def test_a_key_made_by_hand_agrees():
    """Answers with the category that the rules in words give them."""
    lines = (Path(__file__).parent / "answers.tsv").read_text().splitlines()
    assert len(lines) >= 200
    judges = {name: Judge([label.replace("_", " ") for label in labels], ALL) for name, labels in LABELS.items()}
    key = [line.split("\t") for line in lines]
    assert {category for *_, category in key} == set(CATEGORIES)
    wrong = [
        (name, gold, said, wanted, found.category)
        for name, gold, said, wanted in key
        if (found := judges[name](said, gold)).category != wanted
    ]
    assert not wrong
