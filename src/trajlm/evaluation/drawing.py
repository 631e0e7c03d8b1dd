"""Drawing with Pillow: planar bodies where no GL library is installed, and the text on pictures.

The planar bodies (half-cheetah, hopper, walker) are capsules in the plane y = 0; MuJoCo computes
where they are without any graphics library. They are drawn larger and reduced, which smooths
their edges.

Legend: H, W the picture's height and width in pixels.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.evaluation.rendering import GHOST, View, capsule, limb_colors, limbs

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

_ENLARGED = 2
_SKY: tuple[Color, Color] = ((170, 201, 231), (241, 246, 249))
_GROUND: tuple[Color, Color] = ((214, 221, 225), (188, 197, 203))
_HILLS: Color = (209, 223, 231)
_INK: Color = (33, 44, 60)
_MARK: Color = (128, 141, 152)
_POST: Color = (212, 77, 69)
_SPOT: Color = (170, 180, 187)


class PlanarRenderer:
    """Draws a planar model's capsules from the side."""

    def __init__(self, model: Any, *, width: int, height: int) -> None:
        self._model = model
        colors = {geom: _color(255 * rgb) for geom, rgb in limb_colors(model).items()}
        # The walker's left leg, the later geoms, is drawn behind its right one.
        self._limbs = [(geom, colors[geom]) for geom in sorted(limbs(model), reverse=True)]
        self._view = View.of(model)
        self._width, self._height = width * _ENLARGED, height * _ENLARGED
        self._scale = self._height / self._view.height
        self._ground = int(self._height / 2 + self._view.middle * self._scale)
        self._background = self._paint_background()

    def picture(
        self, data: Any, *, ghosts: Sequence[Any] = (), x: float | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8."""
        from PIL import Image, ImageDraw

        picture = self._background.copy()
        draw = ImageDraw.Draw(picture)
        x = float(self._view.center(data)[0]) if x is None else x + self._view.ahead
        self._hills(draw, x)
        self._track(draw, x)
        for ghost in ghosts:
            self._ghost(picture, ghost, x)
        ends = [(capsule(self._model, data, geom), color) for geom, color in self._limbs]
        for (start, end, radius), _ in ends:
            self._spot(draw, start, end, radius, x)
        for (start, end, radius), color in ends:
            self._limb(draw, start, end, radius, x, color)
        small = (self._width // _ENLARGED, self._height // _ENLARGED)
        return np.asarray(picture.resize(small, Image.Resampling.BOX))

    def close(self) -> None:
        """Nothing is held."""

    def _ghost(self, picture: Image.Image, data: Any, center: float) -> None:
        """The body's outline, filled once: limbs that overlap are no darker."""
        from PIL import Image, ImageDraw

        mask = Image.new("L", picture.size, 0)
        draw = ImageDraw.Draw(mask)
        for geom, _ in self._limbs:
            start, end, radius = capsule(self._model, data, geom)
            one, other = self._place(start, center), self._place(end, center)
            _stroke(draw, one, other, radius=radius * self._scale, color=int(255 * GHOST[3]))
        picture.paste(_color(255 * np.array(GHOST[:3])), mask=mask)

    def _paint_background(self) -> Image.Image:
        from PIL import Image

        rows = np.arange(self._height)[:, None]
        sky = _blend(_SKY, rows / self._ground)
        ground = _blend(_GROUND, (rows - self._ground) / max(self._height - self._ground, 1))
        column = np.where(rows < self._ground, sky, ground).astype(np.uint8)[:, None]
        return Image.fromarray(np.repeat(column, self._width, axis=1))

    def _place(self, point: np.ndarray, center: float) -> tuple[float, float]:
        """A point (3,) of the world as pixels of the enlarged picture."""
        column = self._width / 2 + (float(point[0]) - center) * self._scale
        return column, self._ground - float(point[2]) * self._scale

    def _hills(self, draw: ImageDraw.ImageDraw, center: float) -> None:
        """Hills that pass at a fifth of the speed: far away."""
        spacing, shift = 0.6 * self._height, 0.2 * center * self._scale
        first = int(shift // spacing) - 2
        for number in range(first, first + int(self._width / spacing) + 5):
            tall = (0.10 + 0.03 * (number * 7919 % 5)) * self._height
            middle = number * spacing - shift
            box = (middle - spacing, self._ground - tall, middle + spacing, self._ground + tall)
            draw.pieslice(box, 180, 360, fill=_HILLS)

    def _track(self, draw: ImageDraw.ImageDraw, center: float) -> None:
        """The ground line, a tick every metre, a post with its distance every 5 m."""
        reach = int(self._width / self._scale / 2) + 2
        ground, size = self._ground, self._height / 270
        draw.line((0, ground, self._width, ground), fill=_MARK, width=int(2 * size))
        for metre in range(int(center) - reach, int(center) + reach + 1):
            column, _ = self._place(np.array([metre, 0, 0]), center)
            post = metre % 5 == 0
            draw.line((column, ground, column, ground + 8 * size), fill=_MARK, width=int(2 * size))
            if post:
                top = ground - 34 * size
                draw.line((column, top, column, ground), fill=_POST, width=int(3 * size))
                label = (column, ground + 10 * size)
                draw.text(label, f"{metre} m", fill=_INK, font=font(int(11 * size)), anchor="mt")

    def _spot(
        self,
        draw: ImageDraw.ImageDraw,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        center: float,
    ) -> None:
        """A limb's shadow on the ground."""
        low, high = sorted((float(start[0]), float(end[0])))
        left, ground = self._place(np.array([low - radius, 0, 0]), center)
        right, _ = self._place(np.array([high + radius, 0, 0]), center)
        flat = 0.03 * self._scale
        draw.ellipse((left, ground + 1, right, ground + 1 + flat), fill=_SPOT)

    def _limb(
        self,
        draw: ImageDraw.ImageDraw,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        center: float,
        color: Color,
    ) -> None:
        """A capsule with a dark edge and a bright stripe along its upper side."""
        edge = _color(0.6 * np.array(color))
        light = _color(0.65 * np.array(color) + 0.35 * 255)
        one, other = self._place(start, center), self._place(end, center)
        thick = radius * self._scale
        _stroke(draw, one, other, radius=thick, color=edge)
        _stroke(draw, one, other, radius=thick - max(2.0, 0.12 * thick), color=color)
        lift = 0.35 * thick
        raised = [(x - 0.3 * lift, y - lift) for x, y in (one, other)]
        _stroke(draw, raised[0], raised[1], radius=0.22 * thick, color=light)


def _stroke(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    radius: float,
    color: Color | int,
) -> None:
    """A line with round ends."""
    along = np.subtract(end, start)
    length = float(np.hypot(*along))
    if length > 0:
        across = np.array([-along[1], along[0]]) * (radius / length)
        corners = [start + across, end + across, end - across, start - across]
        draw.polygon([tuple(corner) for corner in corners], fill=color)
    for x, y in (start, end):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _color(channels: np.ndarray) -> Color:
    red, green, blue = (int(channel) for channel in channels)
    return red, green, blue


def _blend(colors: tuple[Color, Color], share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return np.asarray(np.array(colors[0]) * (1 - share) + np.array(colors[1]) * share)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that no font file is needed."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written on a picture. `asked` is None where nothing was asked for."""

    title: str
    asked: float | None
    so_far: float
    step: int
    distance: float | None = None
    note: str = ""


def write_caption(pixels: np.ndarray, caption: Caption) -> np.ndarray:
    """The picture (H, W, 3) with a strip of text on top and a bar: return so far of that asked."""
    right = f"step {caption.step}"
    if caption.distance is not None:
        right = f"{caption.distance:.0f} m  ·  " + right
    left = caption.title if caption.asked is None else f"asked {caption.asked:,.0f}"
    picture = write_texts(pixels, left, f"return {caption.so_far:,.0f}", right)
    if not caption.note and not caption.asked:
        return picture
    return _marked(picture, caption)


def write_texts(pixels: np.ndarray, left: str, middle: str = "", right: str = "") -> np.ndarray:
    """The picture (H, W, 3) with a strip of text on top."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    width, (size, strip) = picture.width, _text_sizes(picture.width)
    plate = Image.new("RGBA", (width, strip), (255, 255, 255, 205))
    picture.paste(plate, (0, 0), plate)
    draw = ImageDraw.Draw(picture)
    places = ((left, 10, "lm"), (middle, width / 2, "mm"), (right, width - 10, "rm"))
    for text, column, anchor in places:
        draw.text((column, strip / 2), text, fill=_INK, font=font(size), anchor=anchor)
    return np.asarray(picture)


def in_few_colors(drawn: bytes) -> bytes:
    """A PNG as one of 256 colours: a chart then takes less than half the bytes."""
    from PIL import Image

    return png_in_few_colors(np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")))


def png_in_few_colors(pixels: np.ndarray) -> bytes:
    """A PNG of pixels (H, W, 3) uint8, in a palette of 256 colours."""
    from PIL import Image

    buffer = io.BytesIO()
    reduced = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    reduced.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _text_sizes(width: int) -> tuple[int, int]:
    """Of the letters and of the strip they stand in, on a picture of this width."""
    size = 12 if width < 400 else 14
    return size, size + 12


def _marked(pixels: np.ndarray, caption: Caption) -> np.ndarray:
    """The note under the strip, and the bar."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    width, (size, strip) = picture.width, _text_sizes(picture.width)
    if caption.note:
        draw.text(
            (width / 2, strip + 14), caption.note, fill=_POST, font=font(size + 2), anchor="mm"
        )
    if caption.asked:
        share = min(max(caption.so_far / caption.asked, 0.0), 1.0)
        draw.rectangle((0, strip, width, strip + 3), fill=(226, 231, 235))
        draw.rectangle((0, strip, share * width, strip + 3), fill=_POST)
    return np.asarray(picture)
