"""What the HTML pages of this package share: frame, colours, pictures, responses.

A page is one file: pictures are base64 PNG, nothing is loaded from anywhere, and the browser is told so
(Content-Security-Policy). Whatever is not written here is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable
from html import escape

from vlmreason.segments import KINDS, Response

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6778; --line: #d9dee6; --page: #f6f7f9; --card: #fff;
  --mark: #2f5fb3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --soft: #98a2b3; --line: #343b47; --page: #14171c;
  --card: #1c2027; --mark: #8fb3f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 4px; font-size: 26px; }
h2 { margin: 40px 0 12px; padding-bottom: 6px; border-bottom: 2px solid var(--line); font-size: 21px; }
h3 { margin: 0; font-size: 16px; }
h4 { margin: 0 0 6px; font-size: 13px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 8px; }
a { color: var(--mark); }
.soft { color: var(--soft); }
pre { margin: 0; padding: 10px; max-height: 340px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  border: 1px solid var(--line); border-radius: 6px; font: 12px/1.5 "DejaVu Sans Mono", monospace; }
.kind { padding: 1px 0; border-radius: 3px; -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.key span { padding: 2px 8px; margin-right: 8px; }
"""


def key(responses: Iterable[Response]) -> str:
    """Return the colours of the segments that these responses have, with words."""
    found = {segment.kind for response in responses for segment in response.segments}
    return "".join(
        f'<span class="kind {kind.name}" title="{escape(kind.words)}">{kind.name}</span>'
        for kind in KINDS
        if kind.name in found
    )


def document(title: str, style: str, body: str, script: str = "") -> str:
    """Return the page. `title` is plain text; `style`, `body` and `script` stand as they are."""
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    kinds = "".join(f".kind.{kind.name} {{ background: var(--{kind.name}); }}\n" for kind in KINDS)
    light, dark = (" ".join(f"--{kind.name}: {kind.colours[i]};" for kind in KINDS) for i in (0, 1))
    colours = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{kinds}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{colours}{style}</style>\n</head>\n<body>\n{body}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def image(png: bytes, alt: str, attributes: str = "") -> str:
    """Return a picture inside of the page; `attributes` stand as they are."""
    source = base64.b64encode(png).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{source}"{attributes}>'


def response(response: Response, mark: tuple[int, int] | None = None) -> str:
    """Return a response with its segments coloured; the characters from `mark[0]` to `mark[1]` stand out."""
    marked = mark or (0, 0)
    pieces = []
    for segment, (kind, start, end) in zip(response.segments, response.spans(), strict=True):
        cuts = sorted({start, end, *(cut for cut in marked if start < cut < end)})
        inside = ""
        for left, right in itertools.pairwise(cuts):
            piece = escape(response.text[left:right])
            inside += f"<mark>{piece}</mark>" if marked[0] <= left and right <= marked[1] else piece
        title = f' title="{escape(segment.label)}"' if segment.label else ""
        pieces.append(f'<span class="kind {kind}"{title}>{inside}</span>')
    return "".join(pieces)
