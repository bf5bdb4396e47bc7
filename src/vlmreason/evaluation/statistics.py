"""Intervals for measured rates."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(correct: int, num: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of `correct` out of `num` (num >= 1), without continuity correction."""
    if not 0 <= correct <= num or num < 1:
        raise ValueError(f"correct={correct} of num={num}: no rate")
    interval = binomtest(correct, num).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)
