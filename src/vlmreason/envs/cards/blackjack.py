"""Blackjack (appendix C.1), with the rules of Gymnasium's Blackjack-v1.

Every card is drawn from a whole deck. The player sees the dealer's first card and hits until standing or going over
21, which loses. Behind a player who stands, the dealer hits below 17; the higher hand that is not over 21 wins. The
reward is 1, 0 or -1 and comes at the end. There is no doubling or splitting, and the dealer does not look for a
blackjack first.

The expert's policy is computed from these rules: `stand_value` and `hit_value` are exact up to rounding.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vlmreason.envs.base import ActionEnv, Outcome
from vlmreason.envs.cards.deck import MIN_CARD, TABLE, Card, check_card, deck, paste_cards, rank_name
from vlmreason.pictures import Picture, blank
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, choose_wording

STAND, HIT = "stand", "hit"
BUST, DEALER_STANDS = 21, 17
MAX_HITS = 20  # the hand is over 21 then, even if all were aces
NUM_CARDS = 34  # 2 for each side, MAX_HITS, and 10: a dealer never draws more
_TIE = 1e-9  # values that differ by rounding only

Hand = tuple[int, bool]
"""Points, and whether an ace counts 11 in them."""


@dataclass(frozen=True)
class BlackjackSizes:
    """In pixels: `picture` and `card` (width, height). Three rows of three cards or more are to fit."""

    picture: tuple[int, int]
    card: tuple[int, int]

    def __post_init__(self) -> None:
        for side, card in zip(self.picture, self.card, strict=True):
            if card < MIN_CARD or 3 * card > side:
                raise ValueError(
                    f"card={list(self.card)}: sides from {MIN_CARD} to a third of those of "
                    f"picture={list(self.picture)} are expected"
                )


@dataclass(frozen=True)
class BlackjackState:
    """`deck`: all cards that may be drawn, the player's first two, the dealer's two, then those of hits in order."""

    deck: tuple[Card, ...]
    hits: int = 0
    stood: bool = False
    turn: int = 0

    @property
    def player(self) -> tuple[Card, ...]:
        return self.deck[:2] + self.deck[4 : 4 + self.hits]

    @property
    def dealer(self) -> tuple[Card, ...]:
        """Return the two cards dealt, behind a player who stands also those that the dealer drew."""
        last = 4 + self.hits
        if self.stood:
            while count((*self.deck[2:4], *self.deck[4 + self.hits : last]))[0] < DEALER_STANDS:
                last += 1
        return (*self.deck[2:4], *self.deck[4 + self.hits : last])


@dataclass(frozen=True)
class BlackjackWording:
    """Templates. A prompt is one of the first two, then what is to be replied, with or without chain of thought;
    `prompt_text` may use {text}. The chain of thought is `read` and `decide`, which may use {cards}, {soft}, {points},
    {dealer} (what the open card counts, A: an ace) and {action}; with the action behind them they are one JSON object.
    `soft` stands before points in which an ace counts 11, `joint` between cards.
    """

    prompt_text: str
    prompt_image: str
    reply: str
    reply_action: str
    convert: str
    read: str
    decide: str
    soft: str
    joint: str


_RULES = (
    "You play one hand of blackjack. Number cards count their number, J, Q and K count 10, an ace counts 11, or 1 "
    "where 11 would be too much. You lose with more than 21 points; once you stand, the dealer draws up to 17 points "
    "or more, and the hand with more points wins.\n"
)
_CHOICE = 'The action "hit" draws another card and "stand" ends your draws. Reply with one JSON object of this form:\n'

WORDINGS: Mapping[str, BlackjackWording] = {
    "terse": BlackjackWording(
        prompt_text="{text}\nPlay: ",
        prompt_image="Play: ",
        reply="stand or hit",
        reply_action="only stand or hit",
        convert="Convert the picture to text:",
        read='{{"thoughts": "{cards} is {soft}{points}',
        decide=', dealer {dealer}", ',
        soft="soft ",
        joint=" ",
    ),
    "verbose": BlackjackWording(
        prompt_text=_RULES + "These are the cards (the dealer's second one, ?, is face down):\n{text}\n",
        prompt_image=_RULES + "The picture shows the dealer's two cards in the upper row, one of them face down, and "
        "yours below.\n",
        reply=_CHOICE + '{{\n  "thoughts": "<your points and the dealer\'s, then what to do>",\n'
        '  "action": "<stand or hit>"}}',
        reply_action=_CHOICE + '{{"action": "<stand or hit>"}}',
        convert="Convert the cards in the picture to text, first the dealer's, then the player's:",
        read='{{\n  "thoughts": "My cards are {cards}, which makes {soft}{points} points.',
        decide=' The dealer shows {dealer}. The better choice is to {action}.",\n  ',
        soft="soft ",
        joint=", ",
    ),
}


class Blackjack(ActionEnv[BlackjackState]):
    """`natural`: winning with an ace and a ten-valued card as the first two pays 1.5 (Gymnasium: off by default).

    An episode is its sequence of cards, by whose ranks splits are disjoint; hands that look alike are in all of them.
    """

    name = "blackjack"
    version = 1
    levels = ("standard",)
    state_type = BlackjackState
    sizes_type = BlackjackSizes

    def __init__(
        self,
        sizes: BlackjackSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
        natural: bool = False,
    ) -> None:
        self.sizes = sizes
        self.wording: BlackjackWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot = cot
        self.penalty = penalty
        self.natural = natural
        self.check_wording(BlackjackState(((10, "spades"),) * NUM_CARDS), STAND)

    @property
    def max_turns(self) -> int:
        return MAX_HITS

    def actions(self, state: BlackjackState) -> Sequence[str]:
        return (STAND, HIT)

    def best(self, state: BlackjackState) -> Collection[str]:
        """Return the optimal action, both where they are equally good; none where the hand is over."""
        hand = count(state.player)
        if state.stood or hand[0] > BUST:
            return ()
        return best_actions(hand, points(state.deck[2]))

    def act(self, state: BlackjackState, action: str) -> Outcome[BlackjackState]:
        if action == STAND:
            after = replace(state, stood=True, turn=state.turn + 1)
            reward = self._reward(after)
            return Outcome(after, {"env": reward}, done=True, success=reward > 0)
        after = replace(state, hits=state.hits + 1, turn=state.turn + 1)
        if count(after.player)[0] > BUST:
            return Outcome(after, {"env": -1.0}, done=True)
        return Outcome(after, {"env": 0.0}, done=after.turn >= self.max_turns)

    def _reward(self, state: BlackjackState) -> float:
        player, dealer = count(state.player)[0], count(state.dealer)[0]
        if dealer > BUST or player > dealer:
            return 1.5 if self.natural and state.hits == 0 and player == BUST else 1.0
        return 0.0 if player == dealer else -1.0

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> BlackjackState:
        whole = deck()
        for _ in range(MAX_ATTEMPTS):
            state = BlackjackState(tuple(rng.choices(whole, k=NUM_CARDS)))
            if belongs(self.key(state)):
                return state
        raise self.unreachable(level, "no sequence of cards was found")

    def key(self, state: BlackjackState) -> object:
        return [rank for rank, _ in state.deck]

    def state_from_json(self, data: object) -> BlackjackState:
        state = super().state_from_json(data)
        for card in state.deck:
            check_card(card)
        if len(state.deck) != NUM_CARDS or not 0 <= state.hits <= MAX_HITS:
            raise ValueError(f"problem of {self.name}: {NUM_CARDS} cards and 0 to {MAX_HITS} hits are expected")
        return state

    def text(self, state: BlackjackState) -> str:
        dealer, player = (
            [rank_name(card) if card else "?" for card in cards] for cards in (_shown(state), state.player)
        )
        return f"Dealer: {' '.join(dealer)}\nPlayer: {' '.join(player)}"

    def draw(self, state: BlackjackState) -> Picture:
        (width, height), card = self.sizes.picture, self.sizes.card
        picture = blank(height, width, TABLE)
        top = height - 2 * card[1]
        dealer, player = _shown(state), state.player
        paste_cards(picture, dealer, card, _places(len(dealer), card, (width, card[1]), 0))
        paste_cards(picture, player, card, _places(len(player), card, (width, height - top), top))
        return picture

    def prompt(self, state: BlackjackState, modality: Modality) -> str:
        shown = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        asked = self.wording.reply if self.cot else self.wording.reply_action
        return (shown + asked).format(text=self.text(state) if modality == "text" else "")

    def convert(self, state: BlackjackState) -> str:
        return self.wording.convert

    def thought(self, state: BlackjackState) -> list[str]:
        if not self.cot:
            return []
        cards, opened = state.player, state.deck[2]
        total, soft = count(cards)
        known = {
            "cards": self.wording.joint.join(map(rank_name, cards)),
            "soft": self.wording.soft if soft else "",
            "points": total,
            "dealer": "A" if opened[0] == 1 else points(opened),
            "action": self._choice(state),
        }
        return [part.format(**known) for part in (self.wording.read, self.wording.decide)]

    def answer(self, state: BlackjackState) -> str:
        return self.write_answer(self._choice(state))

    def _choice(self, state: BlackjackState) -> str:
        return HIT if tuple(self.best(state)) == (HIT,) else STAND


def points(card: Card) -> int:
    """Return what a card counts, an ace 1."""
    return min(card[0], 10)


def count(cards: Iterable[Card]) -> Hand:
    """Return the points of a hand; one ace counts 11 where that is not over 21."""
    hand: Hand = (0, False)
    for card in cards:
        hand = add(hand, points(card))
    return hand


def add(hand: Hand, card: int) -> Hand:
    """Return a hand with another card that counts 1 (an ace) to 10."""
    total, soft = hand[0] + card, hand[1]
    if card == 1 and not soft and total + 10 <= BUST:
        return total + 10, True
    return (total - 10, False) if soft and total > BUST else (total, soft)


def best_actions(hand: Hand, opened: int) -> tuple[str, ...]:
    """Return what is optimal with a hand against the dealer's open card, which counts `opened` (1 to 10)."""
    gain = stand_value(hand[0], opened) - hit_value(hand, opened)
    return (STAND, HIT) if abs(gain) < _TIE else (STAND,) if gain > 0 else (HIT,)


@functools.cache
def stand_value(total: int, opened: int) -> float:
    """Return the mean reward of standing with `total` points."""
    ends = _dealer_ends(add((0, False), opened))
    return sum(chance * ((end > BUST or total > end) - (total < end <= BUST)) for end, chance in ends.items())


@functools.cache
def hit_value(hand: Hand, opened: int) -> float:
    """Return the mean reward of hitting and playing on optimally."""
    return sum(chance * _value(add(hand, card), opened) for card, chance in _CHANCES.items())


def _value(hand: Hand, opened: int) -> float:
    return -1.0 if hand[0] > BUST else max(stand_value(hand[0], opened), hit_value(hand, opened))


@functools.cache
def _dealer_ends(hand: Hand) -> Mapping[int, float]:
    """The chances of the points at which a dealer with this hand stops."""
    if hand[0] >= DEALER_STANDS:
        return {hand[0]: 1.0}
    ends: dict[int, float] = {}
    for card, chance in _CHANCES.items():
        for end, further in _dealer_ends(add(hand, card)).items():
            ends[end] = ends.get(end, 0.0) + chance * further
    return ends


_CHANCES: Mapping[int, float] = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}


def _shown(state: BlackjackState) -> tuple[Card | None, ...]:
    """The dealer's cards as the player sees them; None lies face down."""
    return state.dealer if state.stood else (state.deck[2], None)


@functools.lru_cache(maxsize=256)
def _places(num: int, card: tuple[int, int], area: tuple[int, int], top: int) -> tuple[tuple[int, int], ...]:
    """The upper left corners of cards in rows; where they are too many each lies on half of the one before.

    The upper left of a card, where its rank is, stays free as long as that is enough: 15 cards in 3 x 2 places.
    """
    (width, height), (step_x, step_y) = card, card
    while True:
        columns = (area[0] - width) // step_x + 1
        if columns * ((area[1] - height) // step_y + 1) >= num:
            return tuple((i % columns * step_x, top + i // columns * step_y) for i in range(num))
        if step_x * height >= step_y * width or area[1] == height:
            step_x = max(1, step_x // 2)
        else:
            step_y = max(1, step_y // 2)
