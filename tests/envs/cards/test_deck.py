"""Playing cards: their names, what they count, and what is to be seen on them."""

import itertools

import numpy as np
import pytest

from vlmreason.envs.cards.deck import (
    RANKS,
    SIGNS,
    SUITS,
    card_boxes,
    card_sprite,
    check_card,
    deck,
    paste_cards,
    rank_name,
    value,
)

SIZES = [(48, 48), (36, 36), (84, 118), (104, 146), (140, 196)]


def test_decks():
    assert len(set(deck())) == 52 and len(set(deck("black"))) == len(set(deck("red"))) == 26
    assert set(deck("black")) | set(deck("red")) == set(deck())
    assert set(SUITS["all"]) == set(SIGNS)
    assert [rank_name((rank, "spades")) for rank in range(1, 14)] == list(RANKS)


def test_what_cards_count():
    names = ["A", "2", "9", "10", "J", "Q", "K"]
    cards = [(RANKS.index(name) + 1, "hearts") for name in names]
    assert [value(card, "ten") for card in cards] == [1, 2, 9, 10, 10, 10, 10]
    assert [value(card, "ranks") for card in cards] == [1, 2, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("size", SIZES)
def test_cards_look_different(size):
    sprites = [card_sprite(card, *size) for card in (*deck(), None)]
    assert all(sprite.shape == (size[1], size[0], 3) and sprite.dtype == np.uint8 for sprite in sprites)
    step = 1 if size[0] < 60 else 2
    ink = [sprite[::step, ::step].min(axis=2) < 128 for sprite in sprites]
    red = [sprite[::step, ::step, 0] < 128 for sprite in sprites]
    for i, j in itertools.combinations(range(len(sprites)), 2):
        assert (ink[i] != ink[j]).sum() + (red[i] != red[j]).sum() > 8
    assert not any(sprite.flags.writeable for sprite in sprites)


@pytest.mark.parametrize("size", SIZES)
def test_red_suits_are_red_and_black_ones_are_not(size):
    for card in deck():
        pixels = card_sprite(card, *size).astype(int)
        reddish = ((pixels[..., 0] - pixels[..., 1]) > 100).sum()
        assert (reddish > 30) if card[1] in SUITS["red"] else (reddish == 0)


def test_small_cards_have_rank_and_suit_in_a_patch_each():
    for rank in range(1, 14):
        marks = [card_sprite((rank, suit), 48, 48)[2:-2, 2:-2].min(axis=2) < 100 for suit in ("spades", "clubs")]
        for seen in marks:
            assert seen[:22, :22].sum() > 40 and seen[22:, 22:].sum() > 40
            assert not seen[:22, 22:].any() and not seen[22:, :22].any()
        assert (marks[0][:22, :22] == marks[1][:22, :22]).all() and (marks[0] != marks[1]).any()


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("card", "area"), [((48, 48), (144, 144)), ((48, 48), (144, 96)), ((84, 118), (300, 236))])
def test_cards_do_not_overlap_and_lie_on_the_picture(num, card, area):
    boxes = card_boxes(num, card, area)
    covered = np.zeros((area[1], area[0]), int)
    for x, y in boxes:
        assert x >= 0 and y >= 0
        covered[y : y + card[1], x : x + card[0]] += 1
    assert covered.max() == 1 and covered.sum() == num * card[0] * card[1] and len(boxes) == num
    if area[0] == 144:
        assert all(x % 24 == y % 24 == 0 for x, y in boxes)


@pytest.mark.parametrize(
    ("num", "card", "area"), [(4, (80, 80), (144, 144)), (1, (8, 8), (144, 144)), (1, (200, 50), (144, 144))]
)
def test_cards_that_do_not_fit_are_named(num, card, area):
    with pytest.raises(ValueError, match="card="):
        card_boxes(num, card, area)


def test_cards_are_pasted_where_they_belong():
    picture = np.zeros((144, 144, 3), np.uint8)
    boxes = card_boxes(3, (48, 48), (144, 144))
    hand = [(1, "spades"), (13, "hearts"), None]
    paste_cards(picture, hand, (48, 48), boxes)
    for card, (x, y) in zip(hand, boxes, strict=True):
        assert (picture[y : y + 48, x : x + 48] == card_sprite(card, 48, 48)).all()


@pytest.mark.parametrize("card", [(0, "spades"), (14, "spades"), (1, "stars")])
def test_what_is_no_card_is_named(card):
    with pytest.raises(ValueError, match="card="):
        check_card(card)
