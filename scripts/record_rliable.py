"""Record what rliable says of some scores, for the tests of `trajlm.evaluation.scores`.

rliable imports beside pandas 2 alone, so it runs in an environment that is thrown away:

    python -m venv rliable && rliable/bin/pip install rliable "pandas<3"
    rliable/bin/python scripts/record_rliable.py tests/golden/rliable.json
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
from rliable import library, metrics

RESAMPLES = 50_000
SHAPES = {
    "two by one": (2, 1),
    "three by nine": (3, 9),
    "five by four": (5, 4),
    "ten by six": (10, 6),
}
THRESHOLDS = np.linspace(0.0, 1.2, 13)


def main(path: str) -> None:
    generator = np.random.default_rng(2021)
    cases = [
        case(
            name,
            *(
                spread * generator.normal(size=shape) + centre
                for spread, centre in ((0.2, 0.7), (0.3, 0.6))
            ),
        )
        for name, shape in SHAPES.items()
    ]
    versions = {
        name: importlib.metadata.version(name) for name in ("rliable", "pandas", "numpy", "arch")
    }
    Path(path).write_text(
        json.dumps({"versions": versions, "resamples": RESAMPLES, "cases": cases}, indent=1) + "\n"
    )


def case(name: str, first: np.ndarray, second: np.ndarray) -> dict[str, object]:
    """Everything rliable says of two methods' scores, rounded so that ties occur."""
    first, second = np.round(first, 2), np.round(second, 2)
    aggregates = {
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "iqm": metrics.aggregate_iqm,
        "optimality_gap": metrics.aggregate_optimality_gap,
    }
    points, intervals = library.get_interval_estimates(
        {"first": first},
        lambda scores: np.array([aggregate(scores) for aggregate in aggregates.values()]),
        reps=RESAMPLES,
        random_state=np.random.RandomState(0),
    )
    better, better_interval = library.get_interval_estimates(
        {"pair": (first, second)},
        metrics.probability_of_improvement,
        reps=2000,
        random_state=np.random.RandomState(0),
    )
    profiles, _ = library.create_performance_profile({"first": first}, THRESHOLDS, reps=10)
    return {
        "name": name,
        "first": first.tolist(),
        "second": second.tolist(),
        "points": dict(zip(aggregates, points["first"].tolist(), strict=True)),
        "intervals": dict(zip(aggregates, intervals["first"].T.tolist(), strict=True)),
        "probability_of_improvement": float(better["pair"]),
        "probability_interval": better_interval["pair"].ravel().tolist(),
        "thresholds": THRESHOLDS.tolist(),
        "profile": profiles["first"].tolist(),
    }


if __name__ == "__main__":
    main(sys.argv[1])
