"""Measure the search for pairs that one tower finds alike and another one does not, over kept features of real shape.

    python benchmarks/mining.py 50000 768 1024     # pictures, width of the first and of the second tower

Features are random, around as many centres as a tenth of the pictures by the first tower, so that pairs are found; they
are written to a file in a temporary folder and read from there, as the command does.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vlmreason.analysis.mining import Thresholds, search
from vlmreason.models.embedders import UnitVectors
from vlmreason.models.networks.store import FeatureStore


def kept(folder: Path, name: str, num: int, width: int, centres: int) -> UnitVectors:
    """Write random features to a file as `mine` keeps them."""
    rng = np.random.default_rng(width)
    middles = rng.normal(size=(centres, width)).astype(np.float32) if centres else None
    store = FeatureStore(folder, name, width)
    for start in range(0, num, 5000):
        size = min(5000, num - start)
        vectors = rng.normal(size=(size, width)).astype(np.float32)
        if middles is not None:
            vectors = middles[rng.integers(centres, size=size)] + 0.2 * vectors
        store.add([(start + i).to_bytes(16, "big") for i in range(size)], vectors.astype(np.float16))
    return UnitVectors(name, store, np.arange(num))


def main(num: int, first: int, second: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        towers = kept(Path(folder), "first", num, first, num // 10), kept(Path(folder), "second", num, second, 0)
        began, cpu = time.monotonic(), time.process_time()
        *_, state = search(*towers, Thresholds(), 10000)
        seconds, used = time.monotonic() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{num} pictures: {state.count} pairs, {seconds:.0f} s, {used:.0f} CPU seconds, at most {peak:.2f} GiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
