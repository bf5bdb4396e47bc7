"""Intervals for measured rates."""

from __future__ import annotations

from scipy.stats import norm


def wilson_interval(correct: float, num: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of `correct` out of `num` (above 0), without continuity correction.

    Neither need be whole: values that depend on each other count for fewer independent ones.
    """
    if not 0 <= correct <= num or num <= 0:
        raise ValueError(f"correct={correct} of num={num}: no rate")
    share, z = correct / num, float(norm.ppf((1 + confidence) / 2))
    middle = (2 * num * share + z**2) / (2 * (num + z**2))
    half = z / (2 * (num + z**2)) * (4 * num * share * (1 - share) + z**2) ** 0.5
    return 0.0 if correct == 0 else middle - half, 1.0 if correct == num else middle + half
