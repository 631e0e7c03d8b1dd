"""Published scores on D4RL's locomotion datasets, version 2, to stand beside one's own.

All are D4RL scores: 0 the random policy's return, 100 the expert's (Fu et al. 2020, arXiv 2004.07219).
"""

from __future__ import annotations

from collections.abc import Mapping

DATASETS = tuple(
    f"{body}-{tier}-v2"
    for tier in ("medium", "medium-replay", "medium-expert")
    for body in ("halfcheetah", "hopper", "walker2d")
)
CORL, CHEN, JANNER = "CORL", "Chen et al.", "Janner et al."
SOURCES: Mapping[str, str] = {
    CORL: "Tarasov et al. 2022 (CORL, arXiv 2210.07105), the project's table of last scores",
    CHEN: "Chen et al. 2021 (arXiv 2106.01345), best of two target returns",
    JANNER: "Janner et al. 2021 (arXiv 2106.02039), table 1",
}
_SCORES: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("behavior_cloning", CORL): (42.40, 53.51, 63.23, 35.66, 29.81, 21.80, 55.95, 52.30, 98.96),
    ("percent_behavior_cloning", CORL): (
        *(42.46, 55.48, 67.34, 23.59, 70.42, 54.35, 90.10, 111.16, 108.70),
    ),
    ("decision_transformer", CORL): (
        *(42.20, 65.10, 67.63, 38.91, 81.77, 59.86, 91.55, 110.44, 107.11),
    ),
    ("decision_transformer", CHEN): (42.6, 67.6, 74.0, 36.6, 82.7, 66.6, 86.8, 107.6, 108.1),
    ("implicit_q_learning", CORL): (
        *(48.31, 67.53, 80.91, 44.46, 97.43, 82.15, 94.74, 107.42, 111.72),
    ),
    ("trajectory_transformer", JANNER): (46.9, 61.1, 79.0, 41.9, 91.5, 82.6, 95.0, 110.0, 101.9),
}
COLUMNS: Mapping[tuple[str, str], str] = {
    ("behavior_cloning", CORL): "BC, CORL",
    ("percent_behavior_cloning", CORL): "10%BC, CORL",
    ("decision_transformer", CORL): "DT, CORL",
    ("decision_transformer", CHEN): "DT, Chen et al.",
    ("implicit_q_learning", CORL): "IQL, CORL",
    ("trajectory_transformer", JANNER): "TT, Janner et al.",
}
"""What tables call the column of an algorithm in a source."""


def dataset_of(name: str) -> str | None:
    """The D4RL dataset that a file's or a set's name says it is; None for any other."""
    plain = name.lower().rsplit("/", 1)[-1].replace("_", "-")
    return plain if plain in DATASETS else None


def score(algorithm: str, source: str, dataset: str) -> float:
    """A published D4RL score on one of `DATASETS`."""
    return _SCORES[algorithm, source][DATASETS.index(dataset)]
