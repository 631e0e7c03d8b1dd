"""Pictures of small worlds: filled shapes in an array, in colours that survive colour blindness."""

from __future__ import annotations

import numpy as np

Colour = tuple[int, int, int]
BLACK: Colour = (40, 44, 52)
GREY: Colour = (214, 217, 222)
WHITE: Colour = (255, 255, 255)
BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (230, 159, 0)
GREEN: Colour = (0, 158, 115)
PURPLE: Colour = (204, 121, 167)


def rectangle(
    image: np.ndarray, top: int, left: int, height: int, width: int, colour: Colour
) -> None:
    """Fill a rectangle of `image` (H, W, 3) uint8 in place; sizes in pixels."""
    image[top : top + height, left : left + width] = colour


def disc(image: np.ndarray, row: float, column: float, radius: float, colour: Colour) -> None:
    """Fill a disc of `image` (H, W, 3) uint8 in place; what lies outside is left out."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    image[(rows + 0.5 - row) ** 2 + (columns + 0.5 - column) ** 2 <= radius**2] = colour


def line(
    image: np.ndarray, start: tuple[float, float], end: tuple[float, float], colour: Colour
) -> None:
    """Draw a line two pixels thick between (row, column) points of `image` in place."""
    count = int(2 * max(abs(end[0] - start[0]), abs(end[1] - start[1]))) + 2
    rows, columns = (np.linspace(start[i], end[i], count).astype(int) for i in range(2))
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        r = np.clip(rows + shift[0], 0, image.shape[0] - 1)
        c = np.clip(columns + shift[1], 0, image.shape[1] - 1)
        image[r, c] = colour
