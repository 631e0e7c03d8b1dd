"""The Decision Transformer between our names and those of Hugging Face's `transformers`.

Theirs adds row 0 of a table of positions to every token, after the layer norm: on import it joins
that norm's bias, on export the table is zeros. Their heads for states and returns are never read;
they are carried (`Config.published_parts`) so that nothing is lost on the way back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.convert.form import (
    SECTION,
    Fitted,
    Form,
    build,
    carried_spec,
    count,
    refuse_names,
    section,
)
from trajlm.core.config import to_mapping
from trajlm.core.errors import CheckpointError, DataError, UsageError
from trajlm.core.spec import Box, DataSpec
from trajlm.data.statistics import fitted_statistics
from trajlm.data.store import TrajectoryStore

logger = logging.getLogger(__name__)

NAME, TITLE = "decision_transformer", "Decision Transformer"
POSITIONS = 1024
LAYER_NORM_EPSILON = 1e-5
PUBLISHED_RETURN_SCALE = 1000.0
PUBLISHED_CONTEXT = 20
# What our model does in one way only, and the value of their configuration that means it.
FIXED = {
    "layer_norm_epsilon": LAYER_NORM_EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
SINGLE = {
    "embed_return": "embed_return",
    "embed_observation.linear": "embed_state",
    "embed_action.linear": "embed_action",
    "embed_norm": "embed_ln",
    "head.linear": "predict_action.0",
    "transformer.norm": "encoder.ln_f",
}
PARTS = {"published.state": "predict_state", "published.returns": "predict_return"}
OF_A_BLOCK = {
    "norm_attention": "ln_1",
    "norm_mlp": "ln_2",
    "attention.input": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "mlp_input": "mlp.c_fc",
    "mlp_output": "mlp.c_proj",
}
TRANSPOSED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
TIMESTEPS = ("embed_timestep.weight", "embed_timestep.weight")
TOKEN = ("published.token", "encoder.wte.weight")
POSITION = "encoder.wpe.weight"


# ---- from theirs --------------------------------------------------------------------------------


def from_huggingface(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    context_length: int | None = None,
    return_scale: float | None = None,
) -> Algorithm:
    """Our model of their configuration and weights, statistics included where we wrote them.

    Raises `CheckpointError` where the weights do not fit the configuration, or it asks for what
    our model does not do.
    """
    ours = section(config)
    spec, settings = _spec(config, ours), _settings(config, ours)
    if context_length is not None:
        settings["context_length"] = context_length
    if return_scale is not None:
        settings["return_scale"] = return_scale
    tensors = published_names(tensors)
    model, weights = build(
        NAME,
        settings,
        spec,
        lambda made: _ours(tensors, made.num_layers, published=made.published_parts),
    )
    fixed = {
        "return_scale": torch.tensor(model.config.return_scale or _scale(ours)),
        "embed_observation.normalizer.mean": _vector(ours, "state_mean", spec, empty=0.0),
        "embed_observation.normalizer.std": _vector(ours, "state_std", spec, empty=1.0),
    }
    bounds = {name: t for name, t in model.state_dict().items() if ".scale." in name}
    # The published parts that a file lacks are zeros.
    lacking = {
        name: torch.zeros_like(tensor)
        for name, tensor in model.state_dict().items()
        if name.startswith("published.") and name not in weights
    }
    model.load_state_dict({**weights, **lacking, **fixed, **bounds}, strict=True)
    return model.eval()


def infer_config(tensors: Mapping[str, Tensor], data: Fitted | None = None) -> dict[str, Any]:
    """Their configuration from the weights' shapes.

    What leaves no trace in shapes is taken as published, and said: one head, ReLU, a tanh head.
    """
    tensors = published_names(tensors)
    logger.warning(
        "weights without a config.json beside them: taken to have 1 head, ReLU and a tanh head, as "
        "published; put their config.json beside them where they have not"
    )
    try:
        width, state_dim = tensors["embed_state.weight"].shape
        blocks = {name.split(".")[2] for name in tensors if name.startswith("encoder.h.")}
        return {
            "model_type": NAME,
            "state_dim": state_dim,
            "act_dim": tensors["embed_action.weight"].shape[1],
            "hidden_size": width,
            "max_ep_len": tensors["embed_timestep.weight"].shape[0],
            "n_layer": len(blocks),
            "n_head": 1,
            "n_inner": tensors["encoder.h.0.mlp.c_fc.weight"].shape[1],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"no Decision Transformer's weights: {error}") from None


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the authors' code (`transformer.h.0...`) as those of `transformers`, masks left out."""
    masks = (".attn.bias", ".attn.masked_bias")
    return {
        f"encoder.{name.removeprefix('transformer.')}"
        if name.startswith("transformer.")
        else name: tensor
        for name, tensor in tensors.items()
        if not name.endswith(masks)
    }


def _spec(config: Mapping[str, Any], ours: Mapping[str, Any]) -> DataSpec:
    carried = carried_spec(ours)
    if carried is not None:
        return carried
    state, action = count(config, "state_dim", 17), count(config, "act_dim", 4)
    bounded = bool(config.get("action_tanh", True))
    box = Box(shape=(action,), low=(-1.0,) * action, high=(1.0,) * action)
    return DataSpec(
        observation=Box(shape=(state,)),
        action=box if bounded else Box(shape=(action,)),
        horizon=count(config, "max_ep_len", 4096),
        has_statistics="state_mean" in ours,
    )


def _settings(config: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Our `Config` as a mapping. Their defaults are those of their code, not of its docstring."""
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"config.json: {key} {config[key]}: only {value} is known; such a model cannot be "
                "converted"
            )
    if isinstance(ours.get("config"), Mapping):
        return dict(ours["config"])
    activation = config.get("activation_function", "relu")
    if activation not in ("relu", "gelu"):
        raise CheckpointError(
            f"config.json: activation_function {activation!r} is not relu or gelu"
        )
    inner = config.get("n_inner")
    return {
        "context_length": count(
            {"max_length": config.get("max_length") or PUBLISHED_CONTEXT}, "max_length", 1
        ),
        "width": count(config, "hidden_size", 128),
        "num_layers": count(config, "n_layer", 3),
        "num_heads": count(config, "n_head", 1),
        "mlp_width": None if inner is None else count(config, "n_inner", 1),
        "activation": activation,
        "dropout": config.get("resid_pdrop", 0.1),
        "max_timestep": count(config, "max_ep_len", 4096),
        "published_parts": True,
    }


def _scale(ours: Mapping[str, Any]) -> float:
    """What returns were divided by; as published where the file does not say."""
    value = ours.get("return_scale", PUBLISHED_RETURN_SCALE)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < float("inf")
    ):
        raise CheckpointError(f"config.json: {SECTION}.return_scale {value!r} is not positive")
    return float(value)


def _vector(ours: Mapping[str, Any], key: str, spec: DataSpec, *, empty: float) -> Tensor:
    size = spec.observation.size if isinstance(spec.observation, Box) else 0
    try:
        vector = torch.tensor(ours.get(key, [empty] * size), dtype=torch.float32)
    except (TypeError, ValueError):
        vector = torch.empty(0)
    if vector.shape != (size,) or not bool(torch.isfinite(vector).all()):
        raise CheckpointError(f"config.json: {SECTION}.{key}: expected {size} finite numbers")
    return vector


def _ours(tensors: Mapping[str, Tensor], num_layers: int, *, published: bool) -> dict[str, Tensor]:
    """Their tensors under our names; what is unknown is refused by name."""
    wanted = {
        f"{theirs}.{kind}" for _, theirs, _ in _pairs(num_layers, published=True) for kind in KINDS
    }
    wanted |= {TIMESTEPS[1], TOKEN[1], POSITION}
    optional = {f"{theirs}.{kind}" for theirs in PARTS.values() for kind in KINDS} | {
        TOKEN[1],
        POSITION,
    }
    missing, unknown = wanted - optional - set(tensors), set(tensors) - wanted
    refuse_names(missing, unknown, TITLE)
    found: dict[str, Tensor] = {TIMESTEPS[0]: tensors[TIMESTEPS[1]]}
    for ours, theirs, transposed in _pairs(num_layers, published=published):
        for kind in KINDS:
            tensor = tensors.get(f"{theirs}.{kind}")
            if tensor is not None:
                found[f"{ours}.{kind}"] = tensor.T if transposed and kind == "weight" else tensor
    if published and TOKEN[1] in tensors:
        found[TOKEN[0]] = tensors[TOKEN[1]][:1]  # the published table has one row
    if POSITION in tensors:
        found["embed_norm.bias"] = found["embed_norm.bias"] + tensors[POSITION][0]
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


KINDS = ("weight", "bias")


def _pairs(num_layers: int, *, published: bool) -> list[tuple[str, str, bool]]:
    """(our name, theirs, whether the weight is transposed) of every module."""
    pairs = [(ours, theirs, False) for ours, theirs in SINGLE.items()]
    pairs += [(ours, theirs, False) for ours, theirs in PARTS.items()] * published
    return pairs + [
        (f"transformer.blocks.{n}.{ours}", f"encoder.h.{n}.{theirs}", theirs in TRANSPOSED)
        for n in range(num_layers)
        for ours, theirs in OF_A_BLOCK.items()
    ]


# ---- to theirs ----------------------------------------------------------------------------------


def to_huggingface(model: Algorithm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their `config.json` and weights of our model; with ours beside, nothing is lost.

    Raises `UsageError` for spaces that their model has no form for, and for predicted returns.
    """
    config, spec = model.config, model.spec
    if config.predict_returns:
        raise UsageError(
            "Hugging Face's Decision Transformer has no place for a model that predicts returns; "
            "train one without predict_returns"
        )
    if not isinstance(spec.observation, Box) or not isinstance(spec.action, Box):
        raise UsageError(
            "Hugging Face's Decision Transformer knows vectors of real numbers alone; this model's "
            f"observations are {type(spec.observation).__name__}, its actions "
            f"{type(spec.action).__name__}"
        )
    state = {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    tensors = {TIMESTEPS[1]: state[TIMESTEPS[0]]}
    for ours, theirs, transposed in _pairs(config.num_layers, published=config.published_parts):
        for kind in KINDS:
            tensor = state[f"{ours}.{kind}"]
            tensors[f"{theirs}.{kind}"] = tensor.T if transposed and kind == "weight" else tensor
    width = config.width
    tensors[POSITION] = torch.zeros(POSITIONS, width)
    tensors[TOKEN[1]] = state.get(TOKEN[0], torch.zeros(1, width))
    if not config.published_parts:
        for theirs, size in (("predict_state", spec.observation.size), ("predict_return", 1)):
            tensors[f"{theirs}.weight"] = torch.zeros(size, width)
            tensors[f"{theirs}.bias"] = torch.zeros(size)
    published = {
        "architectures": ["DecisionTransformerModel"],
        "model_type": NAME,
        "state_dim": spec.observation.size,
        "act_dim": spec.action.size,
        "hidden_size": width,
        "max_ep_len": len(state[TIMESTEPS[0]]),
        "action_tanh": spec.action.bounded,
        "vocab_size": len(tensors[TOKEN[1]]),
        "n_positions": POSITIONS,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.mlp_width,
        "activation_function": config.activation,
        **{f"{part}_pdrop": config.dropout for part in ("resid", "embd", "attn")},
        **FIXED,
        # Their defaults lie outside a vocabulary of one.
        "bos_token_id": None,
        "eos_token_id": None,
        SECTION: _carried(model, state),
    }
    return published, {name: tensor.contiguous() for name, tensor in tensors.items()}


def _carried(model: Algorithm, state: Mapping[str, Tensor]) -> dict[str, Any]:
    statistics: dict[str, Any] = {}
    if model.spec.has_statistics:
        for key, name in (("state_mean", "mean"), ("state_std", "std")):
            values = state[f"embed_observation.normalizer.{name}"].numpy().astype(np.float64)
            statistics[key] = values.tolist()
    return {
        "config": to_mapping(model.config),
        "spec": model.spec.to_json(),
        "return_scale": float(state["return_scale"]),
        **statistics,
    }


# ---- statistics ---------------------------------------------------------------------------------


def with_statistics(model: Algorithm, data: Fitted, source: str) -> Algorithm:
    """`model` with the state statistics of a dataset, whose facts come with it, or with given ones.

    Raises `DataError` where they do not fit the model.
    """
    spec = model.spec
    if isinstance(data, TrajectoryStore):
        known = data.spec
        for name in ("observation", "action"):
            ours, theirs = getattr(spec, name), getattr(known, name)
            if not isinstance(theirs, Box) or ours.shape != theirs.shape:
                raise DataError(f"{source}: its {name}s are {theirs}, the model's are {ours}")
        fitted = fitted_statistics(data)
        # The head and the scale of past actions are the model's own, whatever the data's bounds.
        facts = _facts_of(known, horizon=spec.horizon, source=source)
        spec = replace(facts, action=spec.action)
    else:
        fitted, spec = dict(data), replace(spec, has_statistics=True)
    size = spec.observation.size if isinstance(spec.observation, Box) else 0
    for key in ("mean", "std"):
        given = np.asarray(fitted[f"observations/{key}"])
        if (
            given.shape != (size,)
            or not np.isfinite(given).all()
            or (key == "std" and (given < 0).any())
        ):
            raise DataError(f"{source}: {key}: expected {size} finite numbers, no std below 0")
    rebuilt: Algorithm = type(model).build(model.config, spec, fitted)
    fresh = rebuilt.state_dict()
    # Statistics are the data's, everything else the model's.
    kept = {n: t for n, t in model.state_dict().items() if ".normalizer." not in n}
    rebuilt.load_state_dict({**fresh, **kept}, strict=True)
    return rebuilt.eval()


def _facts_of(known: DataSpec, *, horizon: int, source: str) -> DataSpec:
    if known.horizon > horizon:
        raise DataError(
            f"{source}: its longest episode has {known.horizon} steps, the model knows {horizon}"
        )
    return replace(known, horizon=horizon)


FORM = Form(
    name=NAME,
    title=TITLE,
    lacks="state statistics",
    recognises=lambda tensors: "embed_state.weight" in tensors,
    infer=infer_config,
    read=from_huggingface,
    write=to_huggingface,
    fit=with_statistics,
    card=(
        "- states go in as `(state - state_mean) / state_std`, normalised before padding;\n"
        "- returns-to-go are divided by `return_scale`;\n"
        "- the last `config.context_length` steps are seen;\n"
        "- actions come out in [-1, 1]: map them to the bounds in `spec.action`.\n"
    ),
)
