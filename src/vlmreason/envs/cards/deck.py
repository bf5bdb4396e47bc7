"""Playing cards: what they are called, what they count, and how they look.

A card is (rank, suit): 1 for the ace to 13 for the king, and the name of the suit. Cards are drawn
by pasting cached sprites.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import Color, Picture, font

Card = tuple[int, str]

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
SIGNS: Mapping[str, str] = {"spades": "♠", "hearts": "♥", "clubs": "♣", "diamonds": "♦"}
SUITS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(SIGNS),
    "black": ("spades", "clubs"),
    "red": ("hearts", "diamonds"),
}
FACE_RULES = ("ten", "ranks")  # jack, queen and king count 10, or 11, 12 and 13

TABLE, PAPER, EDGE = (255, 255, 255), (255, 255, 255), (90, 90, 90)
BLACK, RED, BACK = (0, 0, 0), (214, 0, 0), (52, 84, 160)
MIN_CARD = 16  # pixels
_SMALL = 60  # pixels of width below which a card has room for its rank and one sign only


def deck(suits: str = "all") -> list[Card]:
    """Return the 52 cards, or the 26 of the black or the red suits."""
    return [(rank, suit) for suit in SUITS[suits] for rank in range(1, len(RANKS) + 1)]


def rank_name(card: Card) -> str:
    return RANKS[card[0] - 1]


def value(card: Card, face_cards: str) -> int:
    """Return what a card counts; `face_cards` is one of FACE_RULES, the ace counts 1."""
    return min(card[0], 10) if face_cards == "ten" else card[0]


def substance(cards: Iterable[Card]) -> list[int]:
    """Return what cards count, sorted, face cards as 10: one list for all deals that have the same values by any rule.

    Deals that split by it share no set of values, whichever of FACE_RULES is in force on either side.
    """
    return sorted(value(card, "ten") for card in cards)


def check_card(card: Card) -> None:
    """Raise ValueError where a card that was read from a file is none."""
    if not 1 <= card[0] <= len(RANKS) or card[1] not in SIGNS:
        raise ValueError(
            f"card={list(card)!r}: a rank from 1 to {len(RANKS)} and one of {', '.join(SIGNS)} are expected"
        )


@functools.lru_cache(maxsize=256)
def card_sprite(card: Card | None, width: int, height: int) -> Picture:
    """Return a card of (height, width, 3); None is one that lies face down.

    Small cards show the rank in the upper left quarter and the suit's sign in the lower right one, so that each lies
    within one patch of the model; larger ones look like printed cards.
    """
    if card is None:
        sprite = _back(width, height)
    else:
        sprite = _small(card, width, height) if width < _SMALL else _large(card, width, height)
    pixels = np.array(sprite)
    pixels.setflags(write=False)
    return pixels


def card_boxes(num_cards: int, card: tuple[int, int], area: tuple[int, int]) -> list[tuple[int, int]]:
    """Say where the cards lie on an area: x and y of their upper left corners, rows as full as they go and centred.

    `card` and `area` are width and height (px). Up to four cards lie in rows of two where three do not fit.
    Raises ValueError where they do not fit.
    """
    columns = min(num_cards, area[0] // card[0])
    if num_cards == 4 and columns == 3:
        columns = 2
    rows = -(-num_cards // columns) if columns else 0
    if min(card) < MIN_CARD or not columns or rows * card[1] > area[1]:
        raise ValueError(
            f"card={list(card)}: {num_cards} cards of at least {MIN_CARD} x {MIN_CARD} pixels "
            f"are to fit on {area[0]} x {area[1]}"
        )
    left, top = (area[0] - columns * card[0]) // 2, (area[1] - rows * card[1]) // 2
    return [(left + i % columns * card[0], top + i // columns * card[1]) for i in range(num_cards)]


def paste_cards(
    picture: Picture, cards: Sequence[Card | None], card: tuple[int, int], boxes: Sequence[tuple[int, int]]
) -> None:
    """Lay cards of width and height `card` (px) on a picture, at the corners that `card_boxes` gave."""
    width, height = card
    for each, (x, y) in zip(cards, boxes, strict=False):
        picture[y : y + height, x : x + width] = card_sprite(each, width, height)


def _color(card: Card) -> Color:
    return RED if card[1] in SUITS["red"] else BLACK


def _back(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), TABLE)
    pen = ImageDraw.Draw(image)
    edge = max(1, width // 24)
    box = (edge, edge, width - 1 - edge, height - 1 - edge)
    pen.rounded_rectangle(box, radius=width // 12, fill=BACK, outline=EDGE)
    step = max(4, width // 8)
    inner = (box[0] + step // 2, box[1] + step // 2, box[2] - step // 2, box[3] - step // 2)
    pen.rectangle(inner, outline=PAPER)
    for y in range(inner[1] + step, inner[3], step):
        pen.line([(inner[0], y), (inner[2], y)], fill=PAPER)
    return image


def _small(card: Card, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), TABLE)
    ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), fill=PAPER, outline=EDGE)
    half = (width // 2, height // 2)
    inset = max(1, width // 24)
    rank = _glyph(rank_name(card), (half[0] - 2 * inset, half[1] - 2 * inset), _color(card))
    sign = _glyph(SIGNS[card[1]], (half[0] - 4 * inset, half[1] - 4 * inset), _color(card))
    for glyph, x, y in ((rank, 0, 0), (sign, width - half[0], height - half[1])):
        image.paste(glyph, (x + (half[0] - glyph.width) // 2, y + (half[1] - glyph.height) // 2))
    return image


def _large(card: Card, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), TABLE)
    margin = max(2, width // 30)
    box = (margin, margin, width - 1 - margin, height - 1 - margin)
    ImageDraw.Draw(image).rounded_rectangle(
        box, radius=width // 12, fill=PAPER, outline=EDGE, width=max(1, width // 80)
    )
    color, sign = _color(card), SIGNS[card[1]]
    corner = Image.new("RGB", (width * 21 // 100, height * 29 // 100), PAPER)
    rank = _glyph(rank_name(card), (corner.width, corner.height * 6 // 10), color)
    small = _glyph(sign, (corner.width * 7 // 10, corner.height * 35 // 100), color)
    corner.paste(rank, ((corner.width - rank.width) // 2, 0))
    corner.paste(small, ((corner.width - small.width) // 2, corner.height - small.height))
    middle = _middle(card, (width * 44 // 100, height * 70 // 100))
    image.paste(middle, ((width - middle.width) // 2, (height - middle.height) // 2))
    inset = 2 * margin
    image.paste(corner, (inset, inset))
    image.paste(corner.rotate(180), (width - inset - corner.width, height - inset - corner.height))
    return image


_PIPS: Mapping[int, tuple[tuple[float, float], ...]] = {
    1: ((0.5, 0.5),),
    2: ((0.5, 0.1), (0.5, 0.9)),
    3: ((0.5, 0.1), (0.5, 0.5), (0.5, 0.9)),
    4: ((0.2, 0.1), (0.8, 0.1), (0.2, 0.9), (0.8, 0.9)),
    5: ((0.2, 0.1), (0.8, 0.1), (0.5, 0.5), (0.2, 0.9), (0.8, 0.9)),
    6: ((0.2, 0.1), (0.8, 0.1), (0.2, 0.5), (0.8, 0.5), (0.2, 0.9), (0.8, 0.9)),
    7: ((0.2, 0.1), (0.8, 0.1), (0.2, 0.5), (0.8, 0.5), (0.2, 0.9), (0.8, 0.9), (0.5, 0.3)),
    8: ((0.2, 0.1), (0.8, 0.1), (0.2, 0.5), (0.8, 0.5), (0.2, 0.9), (0.8, 0.9), (0.5, 0.3), (0.5, 0.7)),
    9: (*((x, y) for x in (0.2, 0.8) for y in (0.1, 0.37, 0.63, 0.9)), (0.5, 0.5)),
    10: (*((x, y) for x in (0.2, 0.8) for y in (0.1, 0.37, 0.63, 0.9)), (0.5, 0.23), (0.5, 0.77)),
}
"""Where the signs of a card lie in its middle, as shares of the width and the height."""


def _middle(card: Card, size: tuple[int, int]) -> Image.Image:
    """The signs of a number card; the letter of a face card over its sign."""
    width, height = size
    image = Image.new("RGB", size, PAPER)
    color = _color(card)
    if card[0] > 10:
        letter = _glyph(rank_name(card), (width * 8 // 10, height // 2), color)
        sign = _glyph(SIGNS[card[1]], (width * 8 // 10, height * 35 // 100), color)
        ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), outline=color)
        image.paste(letter, ((width - letter.width) // 2, height // 16))
        image.paste(sign, ((width - sign.width) // 2, height - height // 16 - sign.height))
        return image
    side = width * (9 if card[0] == 1 else 4) // 10
    pip = _glyph(SIGNS[card[1]], (side, min(side, height if card[0] == 1 else height * 22 // 100)), color)
    for x, y in _PIPS[card[0]]:
        turned = pip.rotate(180) if y > 0.5 else pip
        at = (int(x * width - pip.width / 2), int(y * height - pip.height / 2))
        image.paste(turned, (max(0, at[0]), min(max(0, at[1]), height - pip.height)))
    return image


def _glyph(text: str, most: tuple[int, int], color: Color) -> Image.Image:
    """A text in its own box of at most that width and height (px), as high as can be, squeezed where too wide."""
    most = (max(1, most[0]), max(1, most[1]))
    face = font(2 * most[1], bold=True)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    ink = Image.new("RGB", (max(1, right - left), max(1, bottom - top)), PAPER)
    ImageDraw.Draw(ink).text((-left, -top), text, font=face, fill=color)
    scale = most[1] / ink.height
    size = (min(most[0], max(1, round(ink.width * scale))), most[1])
    if len(text) == 1 and ink.width * scale > most[0]:  # a sign keeps its shape
        size = (most[0], max(1, round(ink.height * most[0] / ink.width)))
    return ink.resize(size, Image.Resampling.LANCZOS)
