"""The page in real Chromium, at phone and desktop width; skipped where it is not installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--allow-file-access-from-files",
]  # fmt: skip
# A frame has the width of a phone's screen, which a headless window refuses to take.
MEASURE = """<!DOCTYPE html><body><script>
const widths = WIDTHS, found = [];
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument, shown = e => e.getBoundingClientRect().width > 0;
    const outside = [...page.querySelectorAll("body *")]
      .filter(e => !e.parentElement.closest(".scroll"))
      .filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.tagName);
    const cut = [...page.querySelectorAll("svg text")].filter(shown).filter(t => {
      const box = t.getBoundingClientRect(), all = t.ownerSVGElement.getBoundingClientRect();
      return box.left < all.left - 2 || box.right > all.right + 2;
    }).map(t => t.textContent);
    found.push({
      width, outside, cut,
      scrollWidth: page.documentElement.scrollWidth,
      charts: [...page.querySelectorAll("svg.chart")].filter(shown).map(e => e.getBBox().width),
      curves: [...page.querySelectorAll("svg.chart path")].filter(shown)
        .filter(e => getComputedStyle(e).stroke !== "none").length,
      images: [...page.images].map(e => e.complete ? e.naturalWidth : 0),
      ink: getComputedStyle(page.body).color,
      fills: [...new Set([...page.querySelectorAll("svg text")].map(e => getComputedStyle(e).fill))],
    });
    document.title = found.length === widths.length ? "done" : "";
    document.body.dataset.found = JSON.stringify(found);
  };
  frame.src = "ADDRESS";
  document.body.append(frame);
}
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def measure(page: Path, folder: Path, *widths: int) -> list[dict]:
    """What the browser makes of the page at each width."""
    harness = folder / "measure.html"
    harness.write_text(
        MEASURE.replace("WIDTHS", str(list(widths))).replace("ADDRESS", page.as_uri())
    )
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
         "--virtual-time-budget=8000", "--dump-dom", harness.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return sorted(json.loads(unescape(found[1])), key=lambda one: one["width"])


def test_nothing_overflows_and_nothing_is_empty(
    examples: Callable[[str], Path], tmp_path: Path
) -> None:
    for found in measure(examples("mixed"), tmp_path, 390, 1280):
        assert found["scrollWidth"] <= found["width"], found["width"]
        assert found["outside"] == []
        assert found["cut"] == []
        assert len(found["charts"]) == 7  # three protocols: a curve and a strip each; one training
        assert all(width > 300 for width in found["charts"])
        assert found["curves"] > 50
        assert found["images"]
        assert all(width > 0 for width in found["images"])
        # The charts' text takes the page's colour, so it is read in dark mode as well.
        assert found["fills"] == [found["ink"]]
