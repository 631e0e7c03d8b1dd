"""To and from the authors' and `transformers`' Trajectory Transformer: equal forward, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import trajlm
from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.cli.main import main
from trajlm.convert.huggingface import export_model, import_model, with_statistics
from trajlm.convert.trajectory_transformer import infer_config, with_bins
from trajlm.core.errors import CheckpointError, DataError, UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.data.load import load_dataset
from trajlm.data.sources.arrays import from_arrays
from trajlm.data.sources.synthetic import synthetic

GOLDEN = Path(__file__).parent.parent / "golden"
AUTHORS = GOLDEN / "trajectory_transformer.safetensors"
HUGGINGFACE = GOLDEN / "huggingface_trajectory_transformer.safetensors"
OBSERVATIONS, ACTIONS, BINS, SLOTS = 3, 2, 10, 7


def weights_of(golden: Path) -> dict[str, Tensor]:
    return {
        name.removeprefix("weight."): tensor
        for name, tensor in load_file(golden).items()
        if name.startswith("weight.")
    }


def arrays(
    observations: int = OBSERVATIONS, actions: int = ACTIONS, steps: int = 400
) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "observations": generator.normal(size=(steps, observations)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (steps, actions)).astype(np.float32),
        "rewards": generator.normal(size=steps).astype(np.float32),
        "terminals": np.arange(steps) % 40 == 39,
        "timeouts": np.zeros(steps, bool),
    }


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "data.npz", **arrays())
    return str(tmp_path / "data.npz")


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """As the authors save it: a state dict with the masks of attention among its tensors."""
    weights = weights_of(AUTHORS)
    masks = {f"blocks.{n}.attn.mask": torch.ones(1, 1, 34, 34) for n in range(2)}
    torch.save(weights | masks, tmp_path / "state_50.pt")
    return tmp_path / "state_50.pt"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of `transformers`, with the model that the golden tensors were recorded from."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    with safe_open(HUGGINGFACE, framework="pt") as file:
        (folder / "config.json").write_text(file.metadata()["config"])
    save_file(weights_of(HUGGINGFACE), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@torch.no_grad()
def logits(model: Model, tokens: Tensor) -> Tensor:
    return model.logits(model.hidden(tokens))


def our_model(**changed: object) -> Model:
    store = from_arrays(arrays(), name="made", env_id="HalfCheetah-v5")
    config = Config(transitions=4, num_bins=12, width=32, num_layers=2, num_heads=2, **changed)
    torch.manual_seed(2)
    model = Model.build(config, store.spec, Model.prepare(config, store).fitted).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ---- equal and lossless ---------------------------------------------------------------------------


def test_the_authors_file_computes_alike(
    authors: Path, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    golden = load_file(AUTHORS)
    model = import_model(authors, data=data)
    torch.testing.assert_close(
        logits(model, golden["tokens"]), golden["logits"], rtol=1e-5, atol=1e-5
    )
    assert "4 heads" in caplog.text
    assert "2 of their 7 tokens" in caplog.text
    assert model.config.bins == model.config.fidelity == "published"
    assert model.spec == load_dataset(data).spec


def test_bins_are_refitted_as_published(authors: Path, data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(authors), "--to", "trajlm", str(out), "--data", data]) == 0
    model = trajlm.load(out)
    assert model.spec.has_statistics
    assert model.config.transitions == 5
    for d, column in enumerate(arrays()["observations"].T):
        ordered = np.sort(column)
        edges = np.append(ordered[:: len(ordered) // BINS], ordered[-1])
        np.testing.assert_array_equal(model.discretizer.edges[d], edges)
        np.testing.assert_allclose(
            model.discretizer.values[d], (edges[1:] + edges[:-1]) / 2, rtol=1e-6, atol=1e-7
        )


def test_transformers_folder_computes_alike(theirs: Path) -> None:
    golden = load_file(HUGGINGFACE)
    model = trajlm.load(theirs)
    found = logits(model, golden["tokens"])
    torch.testing.assert_close(found, golden["logits"], rtol=1e-5, atol=1e-5)
    length = golden["logits_of_part"].shape[1]
    found = logits(model, golden["tokens"][:, :length])
    torch.testing.assert_close(found, golden["logits_of_part"], rtol=1e-5, atol=1e-5)
    nats, _ = model.token_nats(model.hidden(golden["tokens"]), golden["targets"])
    weighted = nats * model.slot_weights(nats.shape[1], like=nats)
    torch.testing.assert_close(weighted.mean()[None], golden["loss"], rtol=1e-5, atol=1e-5)


def test_theirs_comes_back_without_a_tensor_lost(theirs: Path, tmp_path: Path) -> None:
    saved = trajlm.save(trajlm.load(theirs), tmp_path / "artefact")
    back = export_model(trajlm.load(saved), tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (theirs, back))
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    old, new = (json.loads((f / "config.json").read_text()) for f in (theirs, back))
    shared = (set(old) & set(new)) - {"architectures"}
    assert {"observation_dim", "n_head", "block_size", "action_weight"} <= shared
    assert {key: old[key] for key in shared} == {key: new[key] for key in shared}


def test_the_authors_file_comes_back_through_transformers_form(
    authors: Path, data: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert main(["convert", str(authors), "--to", "huggingface", str(folder), "--data", data]) == 0
    golden = load_file(AUTHORS)
    model = trajlm.load(folder)
    torch.testing.assert_close(
        logits(model, golden["tokens"]), golden["logits"], rtol=1e-5, atol=1e-5
    )
    back = {
        name.replace(".l1.", ".mlp.0.").replace(".l2.", ".mlp.2."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    before = weights_of(AUTHORS)
    assert set(back) == set(before)
    assert all(torch.equal(back[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("changed", [{}, {"bins": "uniform"}, {"observation_size": 2}])
def test_ours_comes_back_as_it_went(changed: dict[str, object], tmp_path: Path) -> None:
    ours = our_model(**changed)
    folder = export_model(ours, tmp_path / "out")
    back = trajlm.load(folder)
    assert back.config == ours.config
    assert back.spec == ours.spec
    assert set(back.state_dict()) == set(ours.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    assert "transformers<5" in (folder / "README.md").read_text()


def test_the_living_model_agrees(tmp_path: Path) -> None:
    """Where a `transformers` is installed that still has the model (4.30 to 4.57)."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "TrajectoryTransformerModel"):
        pytest.skip(f"transformers {transformers.__version__} has deleted the model")
    ours = our_model()
    folder = export_model(ours, tmp_path / "out")
    there, report = transformers.TrajectoryTransformerModel.from_pretrained(
        folder, output_loading_info=True
    )
    masks = {name for name in report["missing_keys"] if name.endswith(".attn.mask")}
    assert set(report["missing_keys"]) == masks
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    tokens = torch.randint(0, 13, (3, ours.block_size))
    with torch.no_grad():
        found = there.eval()(tokens, return_dict=True).logits
    torch.testing.assert_close(logits(ours, tokens), found, rtol=1e-5, atol=1e-5)
    there.save_pretrained(tmp_path / "saved", safe_serialization=False)
    back = import_model(tmp_path / "saved")
    torch.testing.assert_close(logits(back, tokens), found, rtol=1e-5, atol=1e-5)


# ---- bins and facts of the data -------------------------------------------------------------------


def test_without_data_loading_warns_and_evaluation_refuses(
    theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trajlm.load(theirs)
    assert "no bins came with these weights" in caplog.text
    assert not model.spec.has_statistics
    with pytest.raises(CheckpointError, match="--data DATASET"):
        trajlm.evaluate(model, env_id="HalfCheetah-v5", episodes=1)


def test_what_is_unknown_stays_unknown(theirs: Path, data: str, tmp_path: Path) -> None:
    artefact, folder = tmp_path / "artefact", tmp_path / "folder"
    assert main(["convert", str(theirs), "--to", "trajlm", str(artefact)]) == 0
    assert main(["convert", str(artefact), "--to", "huggingface", str(folder)]) == 0
    assert not trajlm.load(artefact).spec.has_statistics
    assert not trajlm.load(folder).spec.has_statistics
    model = with_statistics(trajlm.load(artefact), data)
    assert model.spec == load_dataset(data).spec
    back = trajlm.load(export_model(model, tmp_path / "back"))
    assert torch.equal(back.discretizer.edges, model.discretizer.edges)


def test_shapes_alone_do_not_split_a_transition(
    authors: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["convert", str(authors), "--to", "trajlm", str(tmp_path / "out")]) == 2
    assert "--data DATASET" in capsys.readouterr().err


def test_a_configuration_beside_the_file_is_used(authors: Path, theirs: Path) -> None:
    (authors.parent / "config.json").write_text((theirs / "config.json").read_text())
    model = import_model(authors)
    assert model.spec.observation.size == OBSERVATIONS
    assert not model.spec.has_statistics


@pytest.mark.parametrize(
    ("source", "observations", "actions", "named"),
    [
        ("authors", 4, 2, ("4 + 2 + 2 tokens", "the weights' has 7")),
        ("authors", 30, 2, ("30 + 2 + 2 tokens", "the weights' has 7")),
        ("theirs", 4, 2, ("4 entries and its actions 2", "the model's 3 and 2")),
        ("theirs", 2, 3, ("2 entries and its actions 3", "the model's 3 and 2")),
    ],
)
def test_data_of_other_dimensions_are_refused(
    source: str,
    observations: int,
    actions: int,
    named: tuple[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "other.npz", **arrays(observations, actions))
    command = ["convert", str(request.getfixturevalue(source)), "--to", "trajlm"]
    out = tmp_path / "out"
    assert main([*command, str(out), "--data", str(tmp_path / "other.npz")]) == 3
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert all(part in complaint for part in named), complaint
    assert not out.exists()


def test_too_few_rows_for_published_bins(theirs: Path, tmp_path: Path) -> None:
    few = arrays(steps=25) | {"terminals": np.arange(25) == 24}
    np.savez(tmp_path / "few.npz", **few)
    with pytest.raises(DataError, match="published bins"):
        import_model(theirs, data=str(tmp_path / "few.npz"))


def test_bins_come_from_a_dataset_alone(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"mean": [0.0] * 3, "std": [1.0] * 3}))
    with pytest.raises(DataError, match="fitted on a dataset"):
        import_model(theirs, data=str(tmp_path / "facts.json"))


def test_of_ant_the_first_27_entries_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = from_arrays(arrays(105, 8), name="ant", env_id="Ant-v5")
    config = Config(transitions=2, num_bins=10, width=8, num_layers=1, observation_size=27)
    model = Model.build(config, store.spec, {})
    folder = export_model(model, tmp_path / "out")
    change(folder, trajlm={})
    bare = trajlm.load(folder)
    assert bare.config.observation_size is None
    fitted = with_bins(bare, store, "ant")
    assert fitted.config.observation_size == 27
    assert fitted.spec.observation.size == 105
    assert "of 105 observed entries the first 27" in caplog.text
    config = infer_config(load_file(folder / "model.safetensors"), store)
    assert (config["observation_dim"], config["action_dim"]) == (27, 8)
    other = from_arrays(arrays(105, 8), name="other", env_id="Humanoid-v5")
    with pytest.raises(DataError, match="105"):
        with_bins(bare, other, "other")


def test_a_converted_model_acts(authors: Path, data: str) -> None:
    model = import_model(authors, data=data)
    policy = model.policy(horizon=2, beam_width=4, context=2, window="published")
    carry = policy.initial(1, Condition())
    _, actions = policy.act(carry, Step.of(np.zeros(OBSERVATIONS, np.float32), is_first=True))
    assert actions.shape == (1, ACTIONS)
    assert np.isfinite(actions).all()


# ---- foreign files --------------------------------------------------------------------------------


def test_pickled_weights_go_through_convert_alone(theirs: Path, tmp_path: Path) -> None:
    """With the prefix and the masks that folders of older versions have."""
    tensors = {
        f"trajectory_transformer.{name}": tensor
        for name, tensor in load_file(theirs / "model.safetensors").items()
    }
    tensors["trajectory_transformer.blocks.0.attn.mask"] = torch.ones(1, 1, 34, 34)
    (theirs / "model.safetensors").unlink()
    torch.save(tensors, theirs / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="trajlm convert"):
        trajlm.load(theirs)
    golden = load_file(HUGGINGFACE)
    found = logits(import_model(theirs), golden["tokens"])
    torch.testing.assert_close(found, golden["logits"], rtol=1e-5, atol=1e-5)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_file_that_runs_code_is_refused(
    authors: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(weights_of(AUTHORS) | {"optimizer": Bomb()}, authors)
    assert main(["convert", str(authors), "--to", "trajlm", "out", "--data", data]) == 4
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "out").exists()


def spoiled(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    key = "blocks.1.attn.key.weight"
    if how == "missing":
        del weights[key]
    elif how == "shape":
        weights[key] = weights[key][:, :-1]
    elif how == "head":
        weights["head.weight"] = weights["head.weight"][0]
    elif how == "vocabulary":
        weights["tok_emb.weight"] = weights["tok_emb.weight"][:-1]
    elif how == "block":
        weights["pos_emb"] = weights["pos_emb"][:, :-1]
    elif how == "extra":
        weights["blocks.1.attn.gate.weight"] = torch.ones(2)
    elif how == "goal":
        weights["goal_emb.weight"] = torch.ones(30, 32)
    elif how == "number":
        weights["ln_f.bias"][0] = float("nan")
    elif how == "another":
        weights = {"conv1.weight": torch.ones(3)}
    return weights


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("missing", "missing blocks.1.attn.key.weight"),
        ("shape", "blocks.1.attn: the maps' shapes differ"),
        ("head", "no Trajectory Transformer's weights"),
        ("vocabulary", "embed_token.weight is [70, 32], not [71, 32]"),
        ("block", "block_size 33"),
        ("extra", "unknown blocks.1.attn.gate.weight"),
        ("goal", "goal_emb.weight"),
        ("number", "not finite"),
        ("another", "not the weights of a Decision Transformer or a Trajectory Transformer"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    how: str, named: str, authors: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(spoiled(weights_of(AUTHORS), how), authors)
    out = authors.parent / "out"
    assert main(["convert", str(authors), "--to", "trajlm", str(out), "--data", data]) == 4
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert named in complaint
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("n_layer", 3, "missing blocks.2"),
        ("n_embd", 64, "embed_token.weight"),
        ("n_head", 5, "num_heads 5"),
        ("n_head", -1, "n_head -1"),
        ("vocab_size", 11, "embed_token.weight"),
        ("transition_dim", 8, "transition_dim 8"),
        ("block_size", 35, "block_size 35"),
        ("block_size", 41, "position is"),
        ("resid_pdrop", None, "dropout"),
        ("action_weight", "x", "action_weight"),
        ("trajlm", {"bins": {"edges": [[0.0]], "values": [[0.0]]}}, "bins.edges"),
        ("trajlm", {"bins": None}, "bins.edges"),
        ("trajlm", {"spec": {"a": 1}}, "unknown keys"),
        ("trajlm", 3, "not a mapping"),
        ("trajlm", {"config": {"goal": "last"}}, "no goal"),
        ("trajlm", {"config": {"widths": 3}}, "widths"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    theirs: Path, key: str, value: object, named: str
) -> None:
    change(theirs, **{key: value})
    with pytest.raises(CheckpointError, match=named):
        trajlm.load(theirs)


def test_bins_that_fall_are_refused(tmp_path: Path) -> None:
    folder = export_model(our_model(), tmp_path / "out")
    ours = json.loads((folder / "config.json").read_text())["trajlm"]
    ours["bins"]["edges"][2].reverse()
    change(folder, trajlm=ours)
    with pytest.raises(CheckpointError, match=r"bins\.edges"):
        trajlm.load(folder)


def test_what_has_no_form_there_is_refused(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="goal"):
        export_model(our_model(goal="last"), tmp_path / "out")
    with pytest.raises(UsageError, match="bins that it was trained with"):
        with_statistics(our_model(), "synthetic:box")
    with pytest.raises(UsageError, match="has neither"):
        import_model(theirs, return_scale=5.0)


def test_discrete_actions_keep_their_facts(tmp_path: Path) -> None:
    store = synthetic("discrete", episodes=6, seed=0)
    config = Config(transitions=3, num_bins=20, width=16, num_layers=1, num_heads=2)
    model = Model.build(config, store.spec, Model.prepare(config, store).fitted).eval()
    back = trajlm.load(export_model(model, tmp_path / "out"))
    assert back.spec == model.spec
    assert torch.equal(back.discretizer.values, model.discretizer.values)
