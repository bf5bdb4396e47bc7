"""Make the pictures of the README: one hard problem per task, at the nano sizes and at the paper's.

python docs/pictures/make.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from vlmreason.assembly.build import load_task
from vlmreason.pictures import Picture
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.structure import structure

TASKS = (
    "consecutive_table_readout",
    "table_readout",
    "grid_navigation",
    "visual_analogy",
    "pattern_heldout_visual_analogy",
)
HEIGHT, WIDTH = 432, 720  # of the paper-scale picture at most; the nano one is three times its own size (px)
GAP = 24  # between the two (px)
NUM_COLORS = 64  # of the palette: keeps the files small


def main() -> None:
    folder = Path(__file__).resolve().parent
    for name in TASKS:
        path = folder / f"{name}.png"
        strip(problem_picture(name, "nano"), problem_picture(name, "paper")).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size // 1000} kB")


def problem_picture(name: str, scale: str) -> Picture:
    settings = yaml.safe_load((conf_dir() / "scale" / f"{scale}.yaml").read_text())
    task = load_task(name, structure(Scale, settings, "scale"))
    picture: Picture = task.draw(task.sample("hard", "train", 0).state)
    return picture


def strip(nano: Picture, paper: Picture) -> Image.Image:
    """Both pictures side by side on white, the upper edges aligned."""
    left = Image.fromarray(np.kron(nano, np.ones((3, 3, 1), np.uint8)))
    right = Image.fromarray(paper)
    right.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + GAP, 0))
    return whole.quantize(NUM_COLORS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
