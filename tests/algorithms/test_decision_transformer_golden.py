"""The forward pass equals the published one: tensors computed with Hugging Face's implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trajlm.algorithms.decision_transformer.config import Config
from trajlm.algorithms.decision_transformer.model import Model
from trajlm.core.spec import Box, DataSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "decision_transformer.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with safe_open(GOLDEN, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def model(golden: dict[str, torch.Tensor]) -> Model:
    with safe_open(GOLDEN, framework="pt") as file:
        published = json.loads(file.metadata()["config"])
    spec = DataSpec(
        observation=Box(shape=(published["state_dim"],)),
        action=Box(
            shape=(published["act_dim"],),
            low=(-1.0,) * published["act_dim"],
            high=(1.0,) * published["act_dim"],
        ),
        horizon=published["max_ep_len"],
    )
    config = Config(
        width=published["hidden_size"],
        num_layers=published["n_layer"],
        num_heads=published["n_head"],
        context_length=golden["states"].shape[1],
    )
    model = Model.build(config, spec, {}).eval()
    model.load_state_dict(published_weights(golden, published["n_layer"]), strict=False)
    return model


def published_weights(golden: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """The published names turned into ours; position row 0, added to every token, joins the time."""

    def linear(theirs: str, ours: str, *, transpose: bool = False) -> None:
        weight = golden[f"weight.{theirs}.weight"]
        weights[f"{ours}.weight"] = weight.T.contiguous() if transpose else weight
        weights[f"{ours}.bias"] = golden[f"weight.{theirs}.bias"]

    weights: dict[str, torch.Tensor] = {}
    linear("embed_return", "embed_return")
    linear("embed_state", "embed_observation.linear")
    linear("embed_action", "embed_action.linear")
    linear("embed_ln", "embed_norm")
    linear("predict_action.0", "head.linear")
    linear("encoder.ln_f", "transformer.norm")
    weights["embed_timestep.weight"] = golden["weight.embed_timestep.weight"]
    for layer in range(num_layers):
        theirs, ours = f"encoder.h.{layer}", f"transformer.blocks.{layer}"
        linear(f"{theirs}.ln_1", f"{ours}.norm_attention")
        linear(f"{theirs}.ln_2", f"{ours}.norm_mlp")
        linear(f"{theirs}.attn.c_attn", f"{ours}.attention.input", transpose=True)
        linear(f"{theirs}.attn.c_proj", f"{ours}.attention.output", transpose=True)
        linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp_input", transpose=True)
        linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp_output", transpose=True)
    # Added after the layer norm in the published code, hence into that norm's bias.
    weights["embed_norm.bias"] = weights["embed_norm.bias"] + golden["weight.encoder.wpe.weight"][0]
    return weights


def predict(model: Model, golden: dict[str, torch.Tensor], **options: object) -> torch.Tensor:
    with torch.inference_mode():
        hidden = model.hidden(
            returns_to_go=golden["returns_to_go"][..., 0],
            observations=golden["states"],
            actions=golden["actions"],
            timesteps=golden["timesteps"],
            visible=golden["attention_mask"].bool(),
            **options,  # type: ignore[arg-type]
        )
        return model.head(hidden)


def test_forward_equals_published(model: Model, golden: dict[str, torch.Tensor]) -> None:
    real = golden["attention_mask"].bool()
    assert real.any() and not real.all()
    difference = (predict(model, golden) - golden["action_preds"])[real].abs().max()
    assert difference < 1e-5


def test_acting_computes_the_last_step_of_the_full_forward(
    model: Model, golden: dict[str, torch.Tensor]
) -> None:
    last = predict(model, golden, last_only=True)
    assert last.shape[1] == 1
    assert (last[:, 0] - golden["action_preds"][:, -1]).abs().max() < 1e-5


def test_every_weight_of_ours_is_covered(model: Model, golden: dict[str, torch.Tensor]) -> None:
    covered = published_weights(golden, len(model.transformer.blocks))
    assert set(dict(model.named_parameters())) == set(covered)
