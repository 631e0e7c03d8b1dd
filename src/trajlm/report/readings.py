"""What the numbers say, in plain words: sentences, warnings, and which rows may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trajlm.evaluation.protocol import COMPARED
from trajlm.evaluation.scores import FEW_SEEDS
from trajlm.report.formatting import amount, asked, count, finite, plain, plus_minus
from trajlm.report.records import Entry, Row, Run
from trajlm.report.tables import num_seeds, over_seeds


def protocol_of(
    row: Row, protocol: Mapping[str, Any], *, last_step: int | None = None
) -> tuple[tuple[str, str], ...]:
    """What must agree before two rows are compared, as (name, value) pairs.

    A checkpoint named by the run's last update is the last one.
    """
    values = {key: row.get(key, protocol.get(key)) for key in COMPARED}
    if last_step is not None and str(values["checkpoint"]) == str(last_step):
        values["checkpoint"] = "last"
    return tuple((key, plain(value)) for key, value in values.items())


def describe_protocol(pairs: Sequence[tuple[str, str]]) -> str:
    """'HalfCheetah-v5, MuJoCo 3.3.0, dataset ..., checkpoint last, precision float32'."""
    known = {key: value for key, value in pairs if key != "data_hash"}
    return ", ".join(
        value if key == "env_id" else f"{COMPARED[key]} {value}" for key, value in known.items()
    )


@dataclass(frozen=True, kw_only=True)
class ProtocolGroup:
    """Rows that may be compared with each other, and the letter that marks them."""

    letter: str
    pairs: tuple[tuple[str, str], ...]
    members: tuple[tuple[Entry, tuple[Row, ...]], ...]

    @property
    def description(self) -> str:
        return describe_protocol(self.pairs)


def by_protocol(entries: Sequence[Entry]) -> list[ProtocolGroup]:
    """Every row under the protocol it was measured by, in the order met."""
    found: dict[tuple[tuple[str, str], ...], dict[int, list[Row]]] = {}
    for number, entry in enumerate(entries):
        last = max((r.last_step for r in entry.runs if r.last_step is not None), default=None)
        for row in entry.rows:
            pairs = protocol_of(row, entry.protocol, last_step=last)
            found.setdefault(pairs, {}).setdefault(number, []).append(row)
    return [
        ProtocolGroup(
            letter=chr(ord("A") + i % 26) + (str(i // 26 + 1) if i >= 26 else ""),
            pairs=pairs,
            members=tuple((entries[n], tuple(rows)) for n, rows in members.items()),
        )
        for i, (pairs, members) in enumerate(found.items())
    ]


def differences(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> list[str]:
    """The names in which two protocols differ."""
    return [COMPARED[key] for (key, a), (_, b) in zip(first, second, strict=True) if a != b]


def sentence(row: Row, *, subject: str = "it") -> str:
    """'asked for 5,500 it reached 5,210 ± 90 over 50 episodes'."""
    reached = f"{subject} reached {plus_minus(row.get('return_mean'), row.get('return_interval'))}"
    episodes = finite(row.get("episodes"))
    over = "" if episodes is None else f" over {count(int(episodes), 'episode')}"
    seeds = num_seeds(row)
    if over_seeds(row) and seeds is not None:
        over = f" over {count(seeds, 'training seed')}"
    target = row.get("target_return")
    lead = "without being asked for a return" if target is None else f"asked for {asked(target)}"
    return f"{lead} {reached}{over}"


def headline_row(rows: Sequence[Row], *, best: float | None) -> Row | None:
    """The highest target that the data contains; where none is inside, the lowest target."""
    scored = [row for row in rows if finite(row.get("return_mean")) is not None]
    targets = [(finite(row.get("target_return")), row) for row in scored]
    inside = [(t, r) for t, r in targets if t is not None and (best is None or t <= best)]
    if inside:
        return max(inside, key=lambda pair: pair[0])[1]
    asked_rows = [(t, r) for t, r in targets if t is not None]
    if asked_rows:
        return min(asked_rows, key=lambda pair: pair[0])[1]
    return scored[0] if scored else None


def obedience(rows: Sequence[Row]) -> str | None:
    """Whether asking for more gave more; None for fewer than three targets."""
    points = sorted(
        (target, mean)
        for row in rows
        if (target := finite(row.get("target_return"))) is not None
        and (mean := finite(row.get("return_mean"))) is not None
    )
    if len(points) < 3:
        return None
    reached = [mean for _, mean in points]
    falls = sum(later < earlier for earlier, later in zip(reached, reached[1:], strict=False))
    if falls == 0:
        return "What it reached rises with every target."
    pairs = len(reached) - 1
    return f"Asking for more gave less in {falls} of {count(pairs, 'step')} between targets."


def best_return(dataset: Mapping[str, Any]) -> float | None:
    """The highest return of a finished episode in the data, from its summary."""
    for key in ("return_max", "best_return", "max_return"):
        if (value := finite(dataset.get(key))) is not None:
            return value
    returns = dataset.get("returns") or dataset.get("return")
    if isinstance(returns, dict) and (value := finite(returns.get("max"))) is not None:
        return value
    quantiles = quantile_pairs(dataset)
    if quantiles and quantiles[-1][0] == 1.0:
        return quantiles[-1][1]
    edges = (histogram(dataset) or ([], []))[0]
    return edges[-1] if edges else None


def quantile_pairs(dataset: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(level in 0..1, return) of `return_quantiles`, rising."""
    found = dataset.get("return_quantiles")
    items = list(found.items()) if isinstance(found, dict) else []
    pairs = []
    for level, value in items:
        try:
            at = float(str(level).removesuffix("%").lstrip("qp"))
        except ValueError:
            continue
        number = finite(value)
        if number is not None:
            pairs.append((at, number))
    if any(at > 1 for at, _ in pairs):
        pairs = [(at / 100, value) for at, value in pairs]
    return sorted(pairs)


def histogram(dataset: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """Edges (n+1) and counts (n) of the returns, or None where they are missing or malformed."""
    found = dataset.get("return_histogram")
    if not isinstance(found, dict):
        return None
    edges, counts = found.get("edges"), found.get("counts")
    if not isinstance(edges, list) or not isinstance(counts, list):
        return None
    numbers = [finite(v) for v in edges], [finite(v) for v in counts]
    if (
        len(edges) != len(counts) + 1
        or not counts
        or any(v is None for side in numbers for v in side)
    ):
        return None
    return [v for v in numbers[0] if v is not None], [v for v in numbers[1] if v is not None]


def planned_updates(entry: Entry | Run) -> int | None:
    """`training.steps` of the configuration, or what the demo wanted before it counted time."""
    found = []
    for mapping, section, key in (
        (entry.config, "training", "steps"),
        (entry.meta, "demo", "wanted"),
    ):
        part = mapping.get(section)
        number = finite(part.get(key)) if isinstance(part, dict) else None
        found += [] if number is None else [int(number)]
    return max(found, default=None)


def warnings(
    rows: Sequence[Row],
    protocol: Mapping[str, Any],
    *,
    best: float | None = None,
    planned: int | None = None,
) -> list[str]:
    """What a reader must know before quoting these rows: plain sentences, most serious first."""
    found: list[str] = []
    if not rows:
        return found
    updates = finite(protocol.get("updates"))
    if updates is not None and planned is not None and updates < planned:
        found.append(f"Only {amount(updates)} of {amount(planned)} planned updates were made.")
    failed = sum(finite(row.get("failed")) or 0 for row in rows)
    if failed:
        found.append(
            f"{count(int(failed), 'episode')} failed and left the means: the environment, not the "
            "agent, may be at fault, so read these means with care."
        )
    found += _seed_warnings(rows)
    if protocol.get("checkpoint") == "best":
        found.append(
            "The best checkpoint was picked by its evaluation score: these scores are optimistic. "
            "Published tables mostly report the last one."
        )
    if protocol.get("precision") not in (None, "float32"):
        found.append(
            f"Actions were computed in {plain(protocol['precision'])}; reported scores use float32."
        )
    beyond = [t for row in rows if (t := finite(row.get("target_return"))) is not None]
    beyond = [t for t in beyond if best is not None and t > best]
    if beyond:
        asked_for = " and ".join(amount(t) for t in sorted(set(beyond)))
        found.append(
            f"Asked for more than the data contains ({asked_for}; its best return is "
            f"{amount(best)}): there the agent extrapolates."
        )
    return found


def _seed_warnings(rows: Sequence[Row]) -> list[str]:
    grouped = [row for row in rows if over_seeds(row)]
    if not grouped:
        text = (
            "One training seed: the interval is over episodes, and says nothing about how another "
            "training seed would do."
        )
        return [text]
    fewest = min((n for row in grouped if (n := num_seeds(row)) is not None), default=None)
    if fewest is not None and fewest < FEW_SEEDS:
        text = (
            f"{count(fewest, 'training seed')}, fewer than {FEW_SEEDS}: the interval over seeds is "
            "itself uncertain."
        )
        return [text]
    return []


def entry_warnings(entry: Entry) -> list[str]:
    """`warnings` of a run or group."""
    return warnings(
        entry.rows,
        entry.protocol,
        best=best_return(entry.dataset),
        planned=planned_updates(entry),
    )
