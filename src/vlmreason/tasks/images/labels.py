"""The labels of the sets of pictures, by the name of the set: what a model may answer, and what is another set's."""

from __future__ import annotations

from collections.abc import Mapping

DIGITS = tuple("0123456789")

NUMBER_WORDS = dict(
    zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), DIGITS, strict=True)
)

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

THINGS10 = (
    "airplane", "telephone", "umbrella", "cat", "horse", "cup", "scissors", "house", "envelope", "anchor",
)  # fmt: skip

THINGS30 = (
    "mouse", "cow", "monkey", "rook", "king", "pawn", "bishop", "keyboard", "pencil", "pen", "hand", "snowman", "comet",
    "sun", "cloud", "moon", "flower", "snowflake", "clover", "skull", "gear", "scale", "flag", "sword", "coffin", "urn",
    "wheelchair", "spade", "heart", "face",
)  # fmt: skip

SYMBOLS30 = (
    "aries", "taurus", "gemini", "cancer", "leo", "virgo", "libra", "scorpio", "sagittarius", "capricorn", "aquarius",
    "pisces", "mercury", "venus", "mars", "jupiter", "saturn", "uranus", "neptune", "pluto", "note", "flat", "natural",
    "sharp", "atom", "biohazard", "ankh", "wheel", "peace", "lily",
)  # fmt: skip

LABELS: Mapping[str, tuple[str, ...]] = {
    "digits": DIGITS,
    "mnist": DIGITS,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "things10": THINGS10,
    "things30": THINGS30,
    "symbols30": SYMBOLS30,
}

SYNONYMS: Mapping[str, str] = {
    "aeroplane": "airplane",
    "plane": "airplane",
    "car": "automobile",
    "boat": "ship",
    "phone": "telephone",
    "tv": "television",
    "motorbike": "motorcycle",
    "bike": "bicycle",
    "sofa": "couch",
    "letter": "envelope",
    "mug": "cup",
    "cog": "gear",
    "scales": "scale",
    "shamrock": "clover",
    "mice": "mouse",
    "wolves": "wolf",
    "men": "man",
    "women": "woman",
    "scorpius": "scorpio",
    "capricornus": "capricorn",
}
"""Other words for labels, each used where its label is one of those that are looked for, and the word is no label."""
