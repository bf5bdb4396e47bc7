"""How training went: the mean over the runs of a cell at each evaluation, with its standard error, and smoothed.

As in the papers on reinforcement learning that the suite repeats (appendix D.3 of the dissertation): lines are smoothed
by a Savitzky-Golay filter of polynomials of degree 3, and the error of a share of N episodes is binomial,
sqrt(p (1 - p) / N). With several runs the error is that of the mean over runs, which has the binomial one in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmreason.studies.results import CellResult

DEGREE = 3


@dataclass(frozen=True)
class Course:
    """One value per evaluation that all runs have. error: standard error of y, 0 where there is none."""

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Smooth by the filter; as they are where it is not asked for (window 0) or has more points than there are."""
    if not window or len(values) < window:
        return values
    from scipy.signal import savgol_filter  # half a second to import

    smooth: np.ndarray = savgol_filter(values, window, DEGREE)
    return smooth


def course(cell: CellResult) -> Course | None:
    """Return the course of a cell with curves of training; None where its runs share no evaluation."""
    if not cell.curves:
        return None
    steps = sorted(set(cell.curves[0].steps).intersection(*(curve.steps for curve in cell.curves)))
    if not steps:
        return None
    found = [dict(zip(curve.steps, zip(curve.x, curve.y, strict=True), strict=True)) for curve in cell.curves]
    table = np.array([[run[step] for step in steps] for run in found])
    x, y = table.mean(axis=0).T
    error = np.zeros_like(y)
    if len(found) > 1:
        error = table[:, :, 1].std(axis=0, ddof=1) / len(found) ** 0.5
    elif cell.cell.measure.in_percent:
        error = np.sqrt(y * (1 - y) / cell.curves[0].num)
    return Course(x, y, error)
