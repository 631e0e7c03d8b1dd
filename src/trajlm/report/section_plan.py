"""The section of plans: what a planner foresaw beside what came, where `trajlm plan` left files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from trajlm.report import chart_plan
from trajlm.report.drawing import guarded, legend
from trajlm.report.elements import gap, scroll, section
from trajlm.report.films import film
from trajlm.report.formatting import amount, count
from trajlm.report.html import Markup, join, tag
from trajlm.report.plans import Plan, newest_plans, updates
from trajlm.report.records import Entry

MOST_PLANS = 2
MAX_PICTURE_BYTES = 3_000_000
BODIES_FILE = "bodies.png"
FILM_FILES = ("plan.mp4", "plan.gif")
WORDS = {
    "plan": (
        "Thin lines: every plan that the search kept. Bold: the chosen one. Dashed: what truly "
        "happened when its actions were executed without looking."
    ),
    "open_loop": (
        "Bold: what the model expects to follow a recorded step, by itself. Dashed: what was "
        "recorded."
    ),
}


def plans(entries: Sequence[Entry]) -> Markup | None:
    """The newest plans of each run; None where no run has any."""
    blocks: list[Markup] = []
    for number, entry in enumerate(entries):
        for run in entry.runs:
            gaps: list[str] = []
            found = newest_plans(run.folder, gaps, most=MOST_PLANS)
            named = len(entries) > 1 or len(entry.runs) > 1
            blocks += [
                _figure(plan, run.name if named else None, key=f"plan-{number}-{run.name}-{place}")
                for place, plan in enumerate(found)
            ]
            blocks += [gap(f"{run.name}: {text}") for text in gaps]
    return section("plan", "What did it plan?", *blocks) if blocks else None


def _figure(plan: Plan, name: str | None, *, key: str) -> Markup:
    chart = guarded(lambda: chart_plan.curves(plan, key=_identity(key)))
    several, true = len(plan.scores) > 1, plan.kind == "plan"
    keys = [("line", "observed before")]
    keys += [("beam", "other beams")] * several
    keys += [("chosen", "chosen beam" if true else "predicted")]
    keys += [("truth", "truly happened" if true else "recorded after it")]
    return join(
        tag("h3", f"{name}: " if name else None, _heading(plan)),
        tag("figure", chart, legend(keys), tag("figcaption", _caption(plan))),
        _bodies(plan) if true else None,
        _film(plan) if true else None,
    )


def _heading(plan: Plan) -> str:
    made = updates(plan)
    after = "" if made is None else f", after {count(made, 'update')}"
    if plan.kind == "open_loop":
        aside = "held-out" if plan.protocol.get("held_out") else "training"
        episode = plan.protocol.get("episode")
        return f"Open loop from step {plan.step:,} of {aside} episode {episode}{after}"
    return (
        f"A plan at step {plan.step:,} of the episode with seed {plan.protocol.get('seed')}{after}"
    )


def _caption(plan: Plan) -> str:
    expected, earned = plan.rewards
    steps = count(min(plan.horizon, len(plan.truth)), "step")
    text = f"{WORDS[plan.kind]} Rewards of {steps}: {amount(expected)} predicted, {amount(earned)} true."
    return f"{text} The episode ended at the cross." if plan.ended else text


def _bodies(plan: Plan) -> Markup | None:
    """The strip of bodies inside the page, where there is one."""
    path = plan.folder / BODIES_FILE
    content = _read(path)
    if content is None:
        return None
    if not content:
        return gap(f"{BODIES_FILE} of {plan.folder.name} is empty or too large for this page.")
    address = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    words = (
        "Above: the planned body, solid for the chosen plan, seen through for others. Below: the true "
        "one at the same moments."
    )
    strip = tag("img", src=address, alt=words, class_="strip")
    return tag("figure", scroll("Planned and true bodies", strip), tag("figcaption", words))


def _film(plan: Plan) -> Markup | None:
    """The video of plans along the episode, where `trajlm plan` recorded one."""
    path = next((p for name in FILM_FILES if (p := plan.folder / name).is_file()), None)
    if path is None:
        return None
    words = "Plans along the episode beside what came of them."
    return film(path, label=words, caption=words)


def _read(path: Path) -> bytes | None:
    """None where there is no picture, nothing where it is too large."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else b""
    except OSError:
        return None


def _identity(key: str) -> str:
    """In letters that suit an id."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in key)
