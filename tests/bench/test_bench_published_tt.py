"""Our writing of the published Trajectory Transformer is the published one, and plans as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.bench.published_tt import PublishedModel, Shape, published_loss, published_twin
from trajlm.core.spec import Box, DataSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "trajectory_transformer.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    with safe_open(GOLDEN, framework="pt") as file:
        return dict(json.loads(file.metadata()["config"]))


@pytest.fixture(scope="module")
def model(golden: dict[str, Tensor], published: dict[str, Any]) -> PublishedModel:
    shape = Shape(
        observation=published["observation_dim"],
        action=published["action_dim"],
        block=published["block_size"],
        num_bins=published["vocab_size"],
        width=published["n_embd"],
        num_layers=published["n_layer"],
        num_heads=published["n_head"],
    )
    model = PublishedModel(shape).eval()
    weights = {n.removeprefix("weight."): t for n, t in golden.items() if n.startswith("weight.")}
    model.load_state_dict(weights)
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_authors_logits_and_loss(model: PublishedModel, golden: dict[str, Tensor]) -> None:
    logits = model(golden["tokens"])
    close(logits, golden["logits"])
    loss = published_loss(logits, golden["targets"], golden["mask"], observation=3, action=2)
    close(loss[None], golden["loss"])


@torch.no_grad()
def test_the_authors_sliding_window(
    model: PublishedModel, golden: dict[str, Tensor], published: dict[str, Any]
) -> None:
    tokens, first = golden["window_tokens"], published["observation_dim"]
    slots, context = model.shape.slots, published["context_transitions"]
    found = []
    for length in range(first, first + golden["window_logp"].shape[1]):
        crop = max(0, -(-(length - (context * slots - 1)) // slots)) * slots
        found.append(torch.log_softmax(model(tokens[:, crop:length])[:, -1], dim=-1))
    close(torch.stack(found, dim=1), golden["window_logp"])


def test_with_our_weights_it_is_our_model() -> None:
    torch.manual_seed(0)
    spec = DataSpec(observation=Box(shape=(3,)), action=Box(shape=(2,)), horizon=100)
    config = Config(transitions=4, num_bins=10, width=32, num_layers=2, num_heads=2)
    ours = Model.build(config, spec, {}).eval()
    with torch.no_grad():
        ours.position.normal_(std=0.1)
    tokens = torch.randint(0, 11, (5, ours.block_size))
    close(published_twin(ours)(tokens), ours.logits(ours.hidden(tokens)))
