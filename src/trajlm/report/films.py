"""Videos inside the page, as long as they are small enough."""

from __future__ import annotations

import base64
from pathlib import Path

from trajlm.report.elements import gap
from trajlm.report.html import Markup, tag
from trajlm.report.records import VIDEO_TYPES

MAX_VIDEO_BYTES = 3_000_000


def film(path: Path, *, label: str, caption: str) -> Markup:
    """A figure with a player, or a sentence on why there is none."""
    shown = "/".join(path.parts[-4:])
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_VIDEO_BYTES else b""
    except OSError as error:
        return gap(f"The video {shown} cannot be read ({error.strerror}).")
    if size > MAX_VIDEO_BYTES:
        limit = f"{MAX_VIDEO_BYTES / 1e6:.0f} MB"
        return gap(f"The video is too large for this page: {shown}, {size / 1e6:.1f} of {limit}.")
    if not content:
        return gap(f"The video {shown} is empty.")
    kind = VIDEO_TYPES[path.suffix.lower()]
    return tag("figure", _player(kind, content, label=label), tag("figcaption", caption))


def _player(kind: str, content: bytes, *, label: str) -> Markup:
    address = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    if kind.startswith("image/"):
        return tag("img", src=address, alt=label)
    return tag(
        "video", "This browser plays no embedded video.", src=address, aria_label=label,
        controls=True, loop=True, muted=True, playsinline=True, preload="auto",
    )  # fmt: skip
