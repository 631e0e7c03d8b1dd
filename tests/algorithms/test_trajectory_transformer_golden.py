"""The forward pass, its loss, the searches and the bins equal those of the authors' 2021 code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from token_models import ALL
from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.spec import Box, DataSpec
from trajlm.nn.discretizer import encode_rows, fit_bins
from trajlm.nn.sampling import Filter
from trajlm.planning.beam import Slot, likelihood_search
from trajlm.planning.window import Window

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
def model(golden: dict[str, Tensor], published: dict[str, Any]) -> Model:
    spec = DataSpec(
        observation=Box(shape=(published["observation_dim"],)),
        action=Box(shape=(published["action_dim"],)),
        horizon=1000,
    )
    config = Config(
        transitions=published["transitions_per_block"],
        num_bins=published["vocab_size"],
        width=published["n_embd"],
        num_layers=published["n_layer"],
        num_heads=published["n_head"],
        action_weight=published["action_weight"],
        fidelity="published",
    )
    model = Model.build(config, spec, {}).eval()
    missing, unexpected = model.load_state_dict(
        published_weights(golden, published["n_layer"]), strict=False
    )
    assert not unexpected
    assert set(missing) == {"discretizer.edges", "discretizer.values"}
    return model


def published_weights(golden: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The published names turned into ours."""
    theirs = {n[len("weight.") :]: t for n, t in golden.items() if n.startswith("weight.")}
    weights = {
        "embed_token.weight": theirs["tok_emb.weight"],
        "position": theirs["pos_emb"][0],
        "head.weight": theirs["head.weight"],
    }
    pairs = {"ln_f": "transformer.norm"}
    for layer in range(num_layers):
        block, ours = f"blocks.{layer}", f"transformer.blocks.{layer}"
        pairs |= {
            f"{block}.ln1": f"{ours}.norm_attention",
            f"{block}.ln2": f"{ours}.norm_mlp",
            f"{block}.attn.proj": f"{ours}.attention.output",
            f"{block}.mlp.0": f"{ours}.mlp_input",
            f"{block}.mlp.2": f"{ours}.mlp_output",
        }
        for kind in ("weight", "bias"):
            parts = [theirs[f"{block}.attn.{n}.{kind}"] for n in ("query", "key", "value")]
            weights[f"{ours}.attention.input.{kind}"] = torch.cat(parts)
    for name, ours in pairs.items():
        weights |= {f"{ours}.{kind}": theirs[f"{name}.{kind}"] for kind in ("weight", "bias")}
    return weights


def published_window(published: dict[str, Any]) -> Window:
    return Window(
        kind="published",
        slots=published["observation_dim"] + published["action_dim"] + 2,
        context=published["context_transitions"],
        block=published["block_size"],
    )


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_logits_and_loss(model: Model, golden: dict[str, Tensor]) -> None:
    hidden = model.hidden(golden["tokens"])
    nats, logits = model.token_nats(hidden, golden["targets"])
    close(logits, golden["logits"])
    weights = model.slot_weights(golden["tokens"].shape[1], like=nats)
    weighted = nats * weights * golden["mask"]
    close(weighted.sum()[None] / golden["mask"].numel(), golden["loss"])


@pytest.mark.parametrize("kind", ALL)
def test_log_probabilities_through_the_sliding_window(
    kind: type, model: Model, golden: dict[str, Tensor], published: dict[str, Any]
) -> None:
    tokens, first = golden["window_tokens"], published["observation_dim"]
    with torch.inference_mode():
        walker = kind(model, published_window(published))
        found = [walker.prefill(tokens[:, :first])]
        found += [walker.step(tokens[:, place]) for place in range(first, tokens.shape[1])]
    found = [torch.log_softmax(logits, dim=-1) for logits in found]
    close(torch.stack(found, dim=1)[:, : golden["window_logp"].shape[1]], golden["window_logp"])


@pytest.mark.parametrize("kind", ALL)
def test_likelihood_search(
    kind: type, model: Model, golden: dict[str, Tensor], published: dict[str, Any]
) -> None:
    prefix, size = golden["search_prefix"], model.layout.size
    steps = len(golden["search_sequence"]) - prefix.shape[1]
    # As published: the stop token is a candidate like any other.
    slots = [
        Slot(index=(prefix.shape[1] + i) % size, keep=Filter(), allowed=model.num_bins + 1)
        for i in range(steps)
    ]
    with torch.inference_mode():
        plans = likelihood_search(
            kind(model, published_window(published)),
            prefix,
            slots=slots,
            beam_width=published["beam_width"],
        )
    assert torch.equal(torch.cat([prefix[0], plans.best[0]]), golden["search_sequence"])
    close(plans.scores[0], golden["search_logp"])


@pytest.mark.parametrize("kind", ALL)
def test_greedy_plan(
    kind: type, model: Model, golden: dict[str, Tensor], published: dict[str, Any]
) -> None:
    prefix, size, edges = golden["plan_prefix"], model.layout.size, golden["plan_bin_edges"]
    middles = (edges[1:] + edges[:-1]) / 2
    walker = kind(model, published_window(published))
    chosen, decoded = [], []
    with torch.inference_mode():
        log_p = torch.log_softmax(walker.prefill(prefix), dim=-1)
        # A row of the recorded plan begins with the action of its transition.
        for place in range(prefix.shape[1], prefix.shape[1] + size * published["horizon"]):
            if place % size >= size - 2:
                decoded.append(log_p[0].exp()[:-1] @ middles)
            chosen.append(log_p.argmax(-1))
            log_p = torch.log_softmax(walker.step(chosen[-1]), dim=-1)
    sequence = torch.cat([prefix[0], torch.cat(chosen)])
    recorded = golden["plan_sequence"].flatten()
    first = prefix.shape[1] - published["observation_dim"]
    count = min(len(recorded), len(sequence) - first)
    assert torch.equal(sequence[first : first + count], recorded[:count])
    close(torch.stack(decoded)[: 2 * published["horizon"]].view(-1, 2), golden["plan_reward_value"])


def test_published_bins(golden: dict[str, Tensor]) -> None:
    rows = golden["bins_data"].numpy()
    fitted = fit_bins(rows, num_bins=10, method="published")
    np.testing.assert_allclose(fitted["edges"].T, golden["bins_edges"], rtol=1e-6, atol=1e-6)
    edges = golden["bins_edges"].numpy().T
    np.testing.assert_array_equal(
        encode_rows(golden["bins_points"].numpy(), edges), golden["bins_tokens"]
    )
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    decoded = np.take_along_axis(middles, golden["bins_tokens"].numpy().T, axis=1).T
    np.testing.assert_allclose(decoded, golden["bins_decoded"])
    np.testing.assert_allclose(fitted["values"], middles, rtol=1e-5, atol=1e-6)
    expected = golden["bins_probabilities"].numpy() @ middles[-2]
    np.testing.assert_allclose(expected, golden["bins_expectation"], rtol=1e-9)
