"""`trajlm data show|check DATASET`: what is in it, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.core.errors import DataError, UsageError, suggestion

ACTIONS = ("show", "check")
MANY_SIZES = 8


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Look at a dataset."""

    env_id: str | None = None
    """The environment, where the dataset does not name it."""
    on_bad: Literal["refuse", "drop-episode"] = "refuse"
    """What `show` does with episodes that hold NaN or whose columns disagree."""
    target_return: tuple[float, ...] = ()
    """Returns that will be asked for: `check` compares them with the data's."""
    max_timestep: int | None = None
    """Rows of the model's timestep table: `check` compares them with the episodes."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    named = [token for token in argv[:2] if not token.startswith("-")]
    arguments = flags.parse(
        DataFlags,
        argv[len(named) :],
        prog="trajlm data",
        description=(
            "trajlm data show DATASET, trajlm data check DATASET (exit code 3 where there are "
            "errors). DATASET: a file (D4RL or Minari HDF5, NPZ), minari:ID or synthetic:NAME."
        ),
        aliases={"--data.env-id": "--env-id", "--policy.target-return": "--target-return"},
    )
    if not named or named[0] not in ACTIONS:
        near = suggestion(named[0], ACTIONS) if named else ""
        raise UsageError(f"write trajlm data show DATASET or trajlm data check DATASET{near}")
    if len(named) < 2:
        raise UsageError(f"no dataset; write trajlm data {named[0]} DATASET")
    to_stderr(verbose=arguments.verbose)
    return (_show if named[0] == "show" else _check)(named[1], arguments)


def _show(reference: str, arguments: DataFlags) -> int:
    from trajlm.data.load import load_dataset
    from trajlm.data.summary import summarize

    store = load_dataset(reference, env_id=arguments.env_id, on_bad=arguments.on_bad)
    summary = summarize(store)
    if arguments.json:
        tables.print_json(summary)
    else:
        tables.print_listing(reference, _lines(summary))
    return 0


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person asks first; `--json` has everything."""
    ends = [f"{summary[key]} {key}" for key in ("terminated", "truncated", "unfinished")]
    lengths, quantiles = summary["lengths"], summary["return_quantiles"]
    levels = [f"{float(level):.0%} {_short(value)}" for level, value in quantiles.items()]
    return [
        ("environment", summary["env_id"] or "not named: --env-id ID"),
        ("episodes", f"{summary['episodes']:,} ({', '.join(ends)})"),
        ("steps", f"{summary['steps']:,}"),
        ("lengths", ", ".join(f"{name} {_short(value)}" for name, value in lengths.items())),
        ("returns", f"mean {_short(summary['return_mean'])}, std {_short(summary['return_std'])}"),
        ("return quantiles", ", ".join(levels) or "no finished episode"),
        *(_leaf(name, leaf) for name, leaf in summary["observation"]["leaves"].items()),
        *(_leaf(name, leaf) for name, leaf in summary["action"]["leaves"].items()),
        ("action range", " to ".join(map(_short, summary["action_range"]))),
        ("reward range", " to ".join(map(_short, summary["reward_range"]))),
        ("last observation", "kept" if summary["has_last_observation"] else "absent"),
        ("hash", summary["hash"][:16]),
    ]


def _leaf(name: str, leaf: Mapping[str, Any]) -> tuple[str, str]:
    """`observations  17 float32`, `observations/image  84 x 84 x 3 uint8`, `actions  one of 5`."""
    if "n" in leaf:
        return name, f"one of {leaf['n']}"
    if "nvec" in leaf:
        sizes = leaf["nvec"]
        if len(sizes) > MANY_SIZES:
            return name, f"{len(sizes)} integers, of {min(sizes)} to {max(sizes)} values"
        return name, f"one of {' x '.join(map(str, sizes))}"
    return name, f"{' x '.join(map(str, leaf['shape'])) or 'scalar'} {leaf['dtype']}"


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _check(reference: str, arguments: DataFlags) -> int:
    from trajlm.data.doctor import check
    from trajlm.data.load import load_dataset

    store = load_dataset(reference, env_id=arguments.env_id, on_bad="keep")
    findings = check(
        store, asked_returns=arguments.target_return, max_timestep=arguments.max_timestep
    )
    errors = [finding for finding in findings if finding.severity == "error"]
    if arguments.json:
        tables.print_json(
            {"dataset": reference, "findings": [f.to_json() for f in findings], "ok": not errors}
        )
    elif findings:
        rows = [(f.rule, f.severity, f.message) for f in findings]
        tables.print_table(reference, ["rule", "", "finding"], rows)
    else:
        print(f"{reference}: nothing found")
    return DataError.exit_code if errors else 0
