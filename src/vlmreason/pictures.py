"""Drawing by pasting cached sprites into an array; no plotting library, no drawing per problem."""

from __future__ import annotations

import functools
import importlib.util
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
MAX_SIDE = 8192
"""Of a picture that a task is told to draw (px)."""
Box = tuple[int, int, int, int]
"""Top, left, height and width of a part of a picture (px)."""


@functools.cache
def font_file(bold: bool = False) -> str:
    """Return DejaVu Sans, from the copy that Matplotlib carries (found without importing it)."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the fonts come with the package matplotlib, which is not installed")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf", name))


@functools.lru_cache(maxsize=64)
def font(size_px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(bold), size_px, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=1024)
def text_sprite(
    text: str,
    size_px: int,
    fill: Color,
    background: Color,
    bold: bool,
    width: int,
    height: int,
    border: Color | None = None,
) -> Picture:
    """Return a cell of (height, width, 3) with the text centred, squeezed sideways where it is too wide.

    `border` draws a line of one pixel along the right and the lower edge.
    """
    image = Image.new("RGB", (width, height), background)
    if text:
        image.paste(*_inked(text, size_px, fill, background, bold, width, height))
    if border is not None:
        edges = ImageDraw.Draw(image)
        edges.line([(width - 1, 0), (width - 1, height - 1), (0, height - 1)], fill=border)
    sprite = np.array(image)
    sprite.setflags(write=False)
    return sprite


def blank(height: int, width: int, color: Color) -> Picture:
    """Return a picture of one color, writable."""
    picture: Picture = np.empty((height, width, 3), dtype=np.uint8)
    if len(set(color)) == 1:
        picture.fill(color[0])
    else:
        picture[:, :] = picture[0] = color
    return picture


def _inked(
    text: str, size_px: int, fill: Color, background: Color, bold: bool, width: int, height: int
) -> tuple[Image.Image, tuple[int, int]]:
    """The text on its background, no larger than a cell of (height, width) less its margins, and where it goes."""
    face = font(size_px, bold)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    ink = Image.new("RGB", (max(1, right - left), max(1, bottom - top)), background)
    ImageDraw.Draw(ink).text((-left, -top), text, font=face, fill=fill)
    side, edge = max(1, width // 24), 1
    most = (max(1, width - 2 * side), max(1, height - 2 * edge))
    size = (min(ink.width, most[0]), min(ink.height, most[1]))
    if size != ink.size:
        ink = ink.resize(size, Image.Resampling.LANCZOS)
    return ink, (side + (most[0] - size[0]) // 2, edge + (most[1] - size[1]) // 2)


PNG_LEVEL = 3  # zlib's effort: two thirds of the time of its default, a tenth to a third more bytes


def png_bytes(picture: Picture) -> bytes:
    """Return a picture as PNG; the same bytes for the same picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Of pictures that are read: those whose readers run no programs."""


def open_picture(path: Path, max_megapixels: float, setting: str) -> Image.Image:
    """Read a picture from elsewhere in RGB. Raises ValueError, naming the setting where it has more pixels than that,
    for anything that is no picture."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > max_megapixels * 1e6:
                raise ValueError(f"{opened.width} x {opened.height} px, more than {setting}")
            return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        words = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ValueError(words or "cannot be read") from error


Picture = NDArray[np.uint8]
"""An RGB picture, shape (height, width, 3)."""
