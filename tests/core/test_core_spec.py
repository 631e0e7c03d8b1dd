"""Targets by name, and facts of the data as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, DataSpec, check_target

SPEC = DataSpec(
    observation=Box(shape=(2,)),
    action=Box(shape=(1,)),
    horizon=9,
    dataset="logs",
    return_min=0.0,
    return_max=100.0,
    return_quantiles=tuple(np.arange(0.0, 101.0, 5.0)),
    expert_return=80.0,
)


@pytest.mark.parametrize(
    ("target", "asked"),
    [("max", 100.0), ("q95", 95.0), ("q0", 0.0), ("q100", 100.0), ("expert", 80.0), (7, 7.0)],
)
def test_a_name_stands_for_a_return_of_the_data(target: str | float, asked: float) -> None:
    assert SPEC.asked_return(target) == asked


@pytest.mark.parametrize("target", ["q96", "q101", "best", "", "q-5", float("nan"), float("inf")])
def test_other_names_are_refused(target: str | float) -> None:
    with pytest.raises(UsageError, match="target_return"):
        check_target(target)


def test_what_the_data_do_not_say_is_refused() -> None:
    bare = DataSpec(observation=Box(shape=(2,)), action=Box(shape=(1,)), horizon=9, dataset="logs")
    with pytest.raises(UsageError, match=r"no expert's return is known for logs"):
        bare.asked_return("expert")
    with pytest.raises(UsageError, match="no quantiles"):
        bare.asked_return("q50")


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=21, max_size=21), st.booleans())
def test_a_spec_survives_json(quantiles: list[float], late: bool) -> None:
    spec = DataSpec(
        observation=Box(shape=(2,)),
        action=Box(shape=(1,)),
        horizon=9,
        return_quantiles=tuple(quantiles),
        delayed_reward=late,
    )
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
