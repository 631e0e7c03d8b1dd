"""Pictures of a plan as files of their own: NAME.svg and NAME.png, on white."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

from trajlm.core.errors import DataError
from trajlm.core.files import replace_file
from trajlm.report.chart_plan import draw_plan, height_of, legend_handles, light
from trajlm.report.plans import Plan, read_plan
from trajlm.report.svg import PAPER, SETTINGS, WIDE

DOTS_PER_INCH = 144  # a PNG for screens with two dots a pixel

logger = logging.getLogger(__name__)


def draw_curves(record: Path, *, name: str) -> list[Path]:
    """Draw a plan.json or open_loop.json beside it; the files written.

    None, with a line in the log, where matplotlib is missing. Raises `DataError` where the file is
    not a plan.
    """
    gaps: list[str] = []
    plan = read_plan(record, gaps)
    if plan is None:
        raise DataError(f"{record}: {' '.join(gaps)}")
    written = []
    for suffix in ("svg", "png"):
        try:
            content = _drawn(plan, suffix)
        except ImportError:
            logger.warning('no curves: matplotlib is missing; pip install "trajlm[report]"')
            return []
        path = record.with_name(f"{name}.{suffix}")
        replace_file(path, content)
        written.append(path)
    return written


def _drawn(plan: Plan, suffix: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    white = {"figure.facecolor": PAPER, "savefig.facecolor": PAPER}
    settings: Any = {
        name: light(value) if isinstance(value, str) else value
        for name, value in {**SETTINGS, **white}.items()
    }
    with matplotlib.rc_context(settings):
        size = (WIDE / 72, height_of(plan) / 72)
        figure = Figure(figsize=size, dpi=72, layout="constrained")
        draw_plan(figure, plan, narrow=False, paint=light)
        handles = legend_handles(plan, light)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
        )
        buffer = io.BytesIO()
        dateless = {"Date": None} if suffix == "svg" else None
        figure.savefig(buffer, format=suffix, dpi=DOTS_PER_INCH, metadata=dateless)
    return buffer.getvalue()
