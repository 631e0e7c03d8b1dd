"""To and from `transformers`' Decision Transformer: equal forward, nothing lost, nothing run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import trajlm
from trajlm.algorithms.decision_transformer.config import Config
from trajlm.algorithms.decision_transformer.model import Model
from trajlm.cli.main import main
from trajlm.convert.huggingface import export_model, import_model, with_statistics
from trajlm.core.errors import CheckpointError, DataError, StorageError, UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.data.sources.arrays import from_arrays
from trajlm.data.sources.synthetic import synthetic

transformers = pytest.importorskip("transformers")
STATES, ACTIONS, ROWS, CONTEXT = 17, 6, 1000, 20


def published(**changed: object):
    """A small published model whose every tensor is random, also those that start as zeros."""
    config = transformers.DecisionTransformerConfig(
        state_dim=STATES, act_dim=ACTIONS, hidden_size=32, n_layer=2, max_ep_len=ROWS,
        bos_token_id=None, eos_token_id=None, **changed,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.DecisionTransformerModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    published().save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def inputs(batch: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "states": torch.randn(batch, CONTEXT, STATES),
        "actions": torch.rand(batch, CONTEXT, ACTIONS) * 2 - 1,
        "returns_to_go": torch.randn(batch, CONTEXT, 1),
        "timesteps": torch.randint(0, ROWS, (batch, CONTEXT)),
    }


@torch.no_grad()
def their_actions(model, given: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = torch.ones(given["timesteps"].shape, dtype=torch.long)
    return model(**given, rewards=None, attention_mask=mask).action_preds


@torch.no_grad()
def our_actions(model: Model, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """On states that are normalised already, as theirs takes them."""
    normalizer = model.embed_observation.normalizer
    hidden = model.hidden(
        returns_to_go=given["returns_to_go"][..., 0] * model.return_scale,
        observations=given["states"] * normalizer.std + normalizer.mean,
        actions=given["actions"],
        timesteps=given["timesteps"],
    )
    return model.head(hidden)


def shared_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def our_model() -> Model:
    """Ours, with statistics, fitted on data of another scale."""
    store = from_arrays(
        {
            "observations": 3
            + 2 * np.random.default_rng(0).normal(size=(120, STATES)).astype("f4"),
            "actions": np.random.default_rng(1).uniform(-1, 1, (120, ACTIONS)).astype("f4"),
            "rewards": np.ones(120, np.float32),
            "terminals": np.zeros(120, bool),
            "timeouts": np.arange(120) % 40 == 39,
        },
        name="made",
        env_id="HalfCheetah-v5",
    )
    config = Config(
        width=32, num_layers=2, context_length=CONTEXT, return_scale=500.0, max_timestep=ROWS
    )
    torch.manual_seed(2)
    return Model.build(config, store.spec, Model.prepare(config, store).fitted).eval()


# ---- equal and lossless ---------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_their_model_acts_alike_here(num_heads: int, activation: str, tmp_path: Path) -> None:
    model = published(n_head=num_heads, activation_function=activation)
    model.save_pretrained(tmp_path / "theirs")
    ours = trajlm.load(tmp_path / "theirs")
    assert (their_actions(model, inputs()) - our_actions(ours, inputs())).abs().max() < 1e-5


def test_our_model_acts_alike_there(tmp_path: Path) -> None:
    ours = our_model()
    folder = export_model(ours, tmp_path / "out")
    theirs, report = transformers.DecisionTransformerModel.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    assert (their_actions(theirs.eval(), inputs()) - our_actions(ours, inputs())).abs().max() < 1e-5


def test_ours_comes_back_as_it_went(tmp_path: Path) -> None:
    ours = our_model()
    back = trajlm.load(export_model(ours, tmp_path / "out"))
    assert back.config == ours.config
    assert back.spec == ours.spec
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_theirs_comes_back_without_a_tensor_lost(theirs: Path, tmp_path: Path) -> None:
    saved = trajlm.save(trajlm.load(theirs), tmp_path / "artefact")
    back = export_model(trajlm.load(saved), tmp_path / "back")
    before, after = shared_tensors(theirs), shared_tensors(back)
    assert set(before) == set(after)
    position = before.pop("encoder.wpe.weight")
    assert not after.pop("encoder.wpe.weight").any()
    moved = before.pop("embed_ln.bias") + position[0]
    assert torch.equal(after.pop("embed_ln.bias"), moved)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    again = transformers.DecisionTransformerModel.from_pretrained(back).eval()
    assert (
        their_actions(again, inputs()) - their_actions(published(), inputs())
    ).abs().max() < 1e-5


# ---- statistics -----------------------------------------------------------------------------------


def test_without_statistics_loading_warns_and_evaluation_refuses(
    theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trajlm.load(theirs)
    assert "no state statistics" in caplog.text
    with pytest.raises(CheckpointError, match="--data DATASET"):
        trajlm.evaluate(model, env_id="HalfCheetah-v5", target_return=1000, episodes=1)


def test_statistics_come_from_a_dataset_or_a_file(theirs: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    arrays = {
        "observations": (5 + generator.normal(size=(80, STATES))).astype(np.float32),
        "actions": generator.uniform(-1, 1, (80, ACTIONS)).astype(np.float32),
        "rewards": np.ones(80, np.float32),
        "terminals": np.zeros(80, bool),
        "timeouts": np.arange(80) % 40 == 39,
    }
    np.savez(tmp_path / "data.npz", **arrays)
    model = with_statistics(import_model(theirs), str(tmp_path / "data.npz"))
    np.testing.assert_allclose(
        model.embed_observation.normalizer.mean, arrays["observations"].mean(0), rtol=1e-5
    )
    assert model.spec.has_statistics
    assert model.spec.return_max == 40.0
    facts = {"mean": [1.0] * STATES, "std": [2.0] * STATES}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    model = with_statistics(import_model(theirs), str(tmp_path / "facts.json"))
    assert model.embed_observation.normalizer.mean.tolist() == facts["mean"]
    assert our_actions(model, inputs()).shape == (3, CONTEXT, ACTIONS)
    (tmp_path / "facts.json").write_text(json.dumps({"mean": [1.0], "std": [1.0]}))
    with pytest.raises(DataError, match="expected 17 finite numbers"):
        with_statistics(import_model(theirs), str(tmp_path / "facts.json"))
    facts = {"mean": [None] * STATES, "std": [1.0] * STATES}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="expected 17 finite numbers"):
        with_statistics(import_model(theirs), str(tmp_path / "facts.json"))
    with pytest.raises(DataError, match="observations are"):
        with_statistics(import_model(theirs), "synthetic:box")


@pytest.mark.parametrize("tanh", [True, False])
def test_a_dataset_s_bounds_do_not_change_what_foreign_weights_compute(
    tanh: bool, tmp_path: Path
) -> None:
    published(action_tanh=tanh).save_pretrained(tmp_path / "theirs")
    generator = np.random.default_rng(3)
    np.savez(
        tmp_path / "data.npz",
        observations=generator.normal(size=(80, STATES)).astype(np.float32),
        actions=generator.uniform(-3, 3, (80, ACTIONS)).astype(np.float32),
        rewards=np.ones(80, np.float32),
        terminals=np.zeros(80, bool),
        timeouts=np.arange(80) % 40 == 39,
    )
    model = with_statistics(import_model(tmp_path / "theirs"), str(tmp_path / "data.npz"))
    beside = their_actions(published(action_tanh=tanh), inputs())
    assert (our_actions(model, inputs()) - beside).abs().max() < 1e-5


def test_the_scale_of_returns_that_was_asked_for_stays(theirs: Path, tmp_path: Path) -> None:
    model = import_model(theirs, return_scale=500.0, context_length=7)
    back = trajlm.load(export_model(model, tmp_path / "out"))
    assert back.return_scale.item() == 500.0
    assert back.config.context_length == 7
    again = import_model(tmp_path / "out", return_scale=250.0)
    assert trajlm.load(export_model(again, tmp_path / "again")).return_scale.item() == 250.0
    for wrong in (0.0, -5.0, float("nan")):
        with pytest.raises(CheckpointError, match="return_scale"):
            import_model(theirs, return_scale=wrong)


# ---- the tutorial's loop --------------------------------------------------------------------------


class Tutorial:
    """How the Hugging Face course evaluates: left padding to 20 steps, the target less each reward."""

    def __init__(self, model, mean: np.ndarray, std: np.ndarray, *, target: float, scale: float):
        self.model, self.mean, self.std, self.scale = model, mean, std, scale
        self.returns = [target / scale]
        self.states: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    @torch.no_grad()
    def act(self, observation: np.ndarray, reward: float, *, first: bool) -> np.ndarray:
        if not first:
            self.returns.append(self.returns[-1] - reward / self.scale)
        self.states.append((observation - self.mean) / self.std)
        time = np.arange(len(self.states))[-CONTEXT:]
        length = len(time)
        padding = CONTEXT - length

        def window(rows: list, size: int) -> torch.Tensor:
            real = np.array(rows, np.float32).reshape(-1, size)[-CONTEXT:]
            padded = np.concatenate([np.zeros((padding, size), np.float32), real])
            return torch.from_numpy(padded)[None]

        action = self.model(
            states=window(self.states, STATES),
            actions=window([*self.actions, np.zeros(ACTIONS)], ACTIONS),
            rewards=None,
            returns_to_go=window(self.returns, 1),
            timesteps=torch.from_numpy(np.concatenate([np.zeros(padding, int), time]))[None],
            attention_mask=torch.tensor([[0] * padding + [1] * length]),
        ).action_preds[0, -1]
        self.actions.append(action.numpy())
        return self.actions[-1]


def test_a_whole_episode_beside_the_tutorial_s_loop(tmp_path: Path) -> None:
    """Both see the same observations, rewards and their own actions; 1,000 steps."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    ours = our_model()
    folder = export_model(ours, tmp_path / "out")
    facts = json.loads((folder / "config.json").read_text())["trajlm"]
    tutorial = Tutorial(
        transformers.DecisionTransformerModel.from_pretrained(folder).eval(),
        np.array(facts["state_mean"]),
        np.array(facts["state_std"]),
        target=6000.0,
        scale=facts["return_scale"],
    )
    policy = ours.policy()
    carry = policy.initial(1, Condition(target_return=np.array([6000.0])))
    environment = gymnasium.make("HalfCheetah-v5")
    observation, _ = environment.reset(seed=0)
    reward, worst = 0.0, 0.0
    for number in range(ROWS):
        step = Step.of(observation, reward=reward, is_first=number == 0)
        carry, (action,) = policy.act(carry, step)
        beside = tutorial.act(observation, reward, first=number == 0)
        worst = max(worst, float(np.abs(action - beside).max()))
        observation, reward, *_ = environment.step(action)
    assert worst < 1e-5


# ---- foreign files --------------------------------------------------------------------------------


def test_pickled_weights_go_through_convert_alone(theirs: Path, tmp_path: Path) -> None:
    tensors = shared_tensors(theirs)
    (theirs / "model.safetensors").unlink()
    torch.save(tensors, theirs / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="trajlm convert"):
        trajlm.load(theirs)
    out = tmp_path / "out"
    assert main(["convert", str(theirs), "--to", "trajlm", str(out)]) == 0
    assert (
        our_actions(trajlm.load(out), inputs()) - their_actions(published(), inputs())
    ).abs().max() < 1e-5


def test_masks_that_older_versions_saved_are_left_out(theirs: Path) -> None:
    tensors = shared_tensors(theirs)
    for layer in range(2):
        tensors[f"encoder.h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8)
        tensors[f"encoder.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, theirs / "model.safetensors")
    beside = their_actions(published(), inputs())
    assert (our_actions(trajlm.load(theirs), inputs()) - beside).abs().max() < 1e-5


def test_a_file_of_the_authors_names_is_read_by_its_shapes(theirs: Path, tmp_path: Path) -> None:
    named = {
        name.replace("encoder.", "transformer."): tensor
        for name, tensor in shared_tensors(theirs).items()
    }
    named["transformer.h.0.attn.bias"] = torch.ones(1, 1, 60, 60)
    torch.save(named, tmp_path / "dt.pt")
    model = import_model(tmp_path / "dt.pt")
    assert (our_actions(model, inputs()) - their_actions(published(), inputs())).abs().max() < 1e-5


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_file_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    assert main(["convert", "bomb.pt", "--to", "trajlm", "out"]) == 4
    assert "more than tensors" in capsys.readouterr().err
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("activation_function", "silu", "activation_function 'silu'"),
        ("scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx"),
        ("model_type", "gpt2", "model_type 'gpt2'"),
        ("n_layer", 3, "missing encoder.h.2"),
        ("hidden_size", 64, "embed_return"),
        ("hidden_size", -1, "hidden_size -1"),
        ("max_ep_len", 999_999, "embed_timestep.weight is"),
        ("resid_pdrop", None, "dropout"),
        ("max_length", "x", "max_length 'x'"),
        ("trajlm", {"return_scale": "x"}, "return_scale 'x'"),
        ("trajlm", {"state_mean": [1.0], "state_std": [1.0]}, "expected 17 finite numbers"),
        ("trajlm", {"spec": {"a": 1}}, "unknown keys"),
    ],
)
def test_what_does_not_fit_is_named(theirs: Path, key: str, value: object, named: str) -> None:
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=named):
        trajlm.load(theirs)


def test_weights_that_are_no_numbers_are_refused(theirs: Path) -> None:
    tensors = shared_tensors(theirs)
    tensors["embed_ln.weight"][0] = float("nan")
    save_file(tensors, theirs / "model.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        trajlm.load(theirs)


def test_what_has_no_form_there_is_refused(tmp_path: Path) -> None:
    store = synthetic("discrete", episodes=4, seed=0)
    config = Config(width=32, num_layers=1)
    model = Model.build(config, store.spec, Model.prepare(config, store).fitted)
    with pytest.raises(UsageError, match="real numbers alone"):
        export_model(model, tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(StorageError, match="exists already"):
        export_model(our_model(), tmp_path / "there")


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--to", "onnx", "y"], ["x"], ["--to", "trajlm", "y"]]
)
def test_bad_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_flags_for_foreign_weights_are_refused_for_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajlm.save(our_model(), tmp_path / "ours")
    flags = ["--to", "huggingface", str(tmp_path / "out"), "--return-scale", "5"]
    assert main(["convert", str(tmp_path / "ours"), *flags]) == 2
    assert "has its own" in capsys.readouterr().err


def test_a_converted_model_is_evaluated_where_statistics_are_known(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mujoco")
    flags = ["--env-id", "HalfCheetah-v5", "--policy.target-return", "1000", "--episodes", "1"]
    flags += ["--evaluation.no-video", "--threads", "1"]
    assert main(["evaluate", str(theirs), *flags]) == 4
    assert "--data DATASET" in capsys.readouterr().err
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"mean": [0.0] * STATES, "std": [1.0] * STATES}))
    out = tmp_path / "out"
    convert = ["convert", str(theirs), "--to", "trajlm", str(out), "--statistics-from", str(facts)]
    assert main(convert) == 0
    assert main(["evaluate", str(out), *flags]) == 0
    row = json.loads((tmp_path / "out-eval" / "results.json").read_text())["rows"][0]
    assert row["target_return"] == 1000.0
    assert row["length_mean"] == 1000
    assert trajlm.load(out).spec.has_statistics, "the artefact is as it was"
