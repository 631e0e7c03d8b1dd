"""Draws of many futures at once are those of one at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from trajlm.algorithms.dynamics_ensemble.config import Config
from trajlm.algorithms.dynamics_ensemble.model import Model
from trajlm.data.sources.synthetic import synthetic
from trajlm.evaluation.predictions import recorded_windows
from trajlm.reproduce import long_horizon_rollouts as measured


def test_draws_at_once_are_those_of_one_at_a_time() -> None:
    store = synthetic("box", episodes=6)
    config = Config(members=3, width=16, num_layers=2)
    torch.manual_seed(0)
    world = (
        Model.build(config, store.spec, Model.prepare(config, store).fitted).eval().world_model()
    )
    recorded = recorded_windows(store, known=2, horizon=5, count=4)
    scene = cast(Any, SimpleNamespace(recorded=recorded))
    together = measured._drawn(world, scene, draws=np.arange(2, 5))
    for place, draw in enumerate(range(2, 5)):
        alone = measured._drawn(world, scene, draws=np.array([draw]))[0]
        np.testing.assert_allclose(together[place], alone, rtol=1e-5, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3
