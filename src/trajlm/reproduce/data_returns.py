"""What the episodes of a dataset return: what a policy learned from it is held against."""

from __future__ import annotations

from typing import Any

from trajlm.evaluation.scores import bootstrap_interval


def behaviour_of(data: str) -> dict[str, Any]:
    """What the data's finished episodes return: mean and 95% interval over them."""
    from trajlm.data.load import load_dataset

    returns = load_dataset(data).finished.returns
    return {
        "mean": float(returns.mean()),
        "interval": bootstrap_interval(returns),
        "episodes": len(returns),
    }
