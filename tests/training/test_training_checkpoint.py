"""Artefacts and checkpoints: what is written is read back, what is damaged is named."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import trajlm
from trajlm.core.errors import CheckpointError, StorageError
from trajlm.training import archive, checkpoint
from trajlm.training.archive import CheckpointArchive
from trajlm.training.checkpoint import load_artefact, save_artefact
from trajlm.training.folder import write_folder


@pytest.fixture
def toy():
    import toy_run

    return toy_run


@pytest.fixture
def artefact(toy, tmp_path):
    return save_artefact(toy.toy_model(), tmp_path / "artefact", eval={"rows": []})


def rewrite(folder, name, data):
    """Replace a file and its entry in the manifest: a stranger's file, whole but wrong."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"][name] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder, "config.json", json.dumps(config | changes).encode())


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "changed")
    data = (folder / "changed").read_bytes()
    (folder / "changed").unlink()
    rewrite(folder, "model.safetensors", data)


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_artefact(folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_through_the_public_door(toy, tmp_path):
    model = toy.toy_model()
    trajlm.save(model, tmp_path / "name with blanks")
    loaded = trajlm.load(tmp_path / "name with blanks")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert loaded.config == model.config
    assert loaded.spec == model.spec


def test_file_modes_follow_the_umask(toy, tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_artefact(toy.toy_model(), tmp_path / "artefact")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750


def test_no_pickle_and_no_leftovers(artefact):
    names = {path.name for path in artefact.iterdir()}
    expected = {"config.json", "model.safetensors", "manifest.json", "README.md", "eval.json"}
    assert names == expected
    assert [path.name for path in artefact.parent.iterdir()] == ["artefact"]


def test_an_existing_folder_is_not_written_over(toy, artefact):
    with pytest.raises(StorageError, match="exists already"):
        save_artefact(toy.toy_model(), artefact)
    save_artefact(toy.toy_model(seed=1), artefact, overwrite=True)
    weight = toy.toy_model(seed=1).hidden.weight
    assert torch.equal(load_artefact(artefact).hidden.weight, weight)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "eval.json"])
def test_a_flipped_bit_is_found(artefact, name):
    data = bytearray((artefact / name).read_bytes())
    data[len(data) // 2] ^= 4
    (artefact / name).write_bytes(data)
    refused(artefact, f"{name}: damaged")


def test_truncated_empty_and_missing_files(artefact):
    weights = artefact / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(artefact, "model.safetensors: damaged.*100 bytes")
    weights.write_bytes(b"")
    refused(artefact, "model.safetensors: damaged.*0 bytes")
    weights.unlink()
    refused(artefact, "model.safetensors: missing")
    refused(artefact / "nowhere", "no such folder")


def test_a_folder_without_manifest_is_loaded_with_a_warning(artefact, caplog):
    (artefact / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        load_artefact(artefact)
    assert "unverified" in caplog.text


def test_an_extra_file_is_warned_of(artefact, caplog):
    (artefact / "notes.txt").write_text("mine")
    load_artefact(artefact)
    assert "notes.txt: not in the manifest" in caplog.text


@pytest.mark.parametrize("name", ["../config.json", "/etc/hostname", "", ".."])
def test_a_manifest_that_names_files_elsewhere(artefact, name):
    manifest = json.loads((artefact / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "", "bytes": 0}
    (artefact / "manifest.json").write_text(json.dumps(manifest))
    refused(artefact, "not a name of a file in this folder")


def test_tensors_missing_unknown_misshaped(artefact):
    def change(tensors):
        del tensors["head.bias"]
        tensors["head.scale"] = torch.zeros(2)
        tensors["hidden.weight"] = torch.zeros(3, 4)
        tensors["hidden.bias"] = tensors["hidden.bias"].double()

    edit_tensors(artefact, change)
    message = refused(artefact, "missing tensors: head.bias; unknown tensors: head.scale; misfit")
    assert "hidden.weight is float32[3, 4], not float32[16, 4]" in message
    assert "hidden.bias is float64[16], not float32[16]" in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(artefact, value):
    edit_tensors(artefact, lambda tensors: tensors["hidden.weight"][0].fill_(value))
    refused(artefact, "'hidden.weight' holds numbers that are not finite")


def test_buffers_may_be_infinite_but_not_nan(artefact):
    assert torch.isinf(load_artefact(artefact).low).all()
    edit_tensors(artefact, lambda tensors: tensors["mean"].fill_(torch.nan))
    refused(artefact, "'mean' holds numbers")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"config": {"width": 16, "depth": 2}}, "unknown configuration key 'config.depth'"),
        ({"config": {"width": "wide"}}, "config.width: expected int"),
        ({"config": {"width": 10**9}}, "width: must lie in 1 to 1024"),
        ({"config": {"width": -1}}, "width: must lie in 1 to 1024"),
        ({"config": [1]}, "config.json"),
        ({"algorithm": "os.system"}, "unknown algorithm 'os.system'"),
        ({"algorithm": "toi"}, "did you mean 'toy'"),
        ({"spec": {"horizon": 3}}, "missing"),
        ({"spec": []}, "config.json"),
        ({"extra": 1}, r"unknown keys \['extra'\]"),
        ({"format": "trajlm.artefact/9"}, "format 'trajlm.artefact/9' found"),
        ({"format": ["a"]}, "format"),
    ],
)
def test_a_configuration_that_does_not_fit(artefact, changes, match):
    edit_config(artefact, **changes)
    assert "config.json" in refused(artefact, match)


@pytest.mark.parametrize(
    "data", [b"{", b"[1]", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000, b" " * 10_000_001]
)
def test_a_configuration_that_is_no_json(artefact, data):
    rewrite(artefact, "config.json", data)
    refused(artefact, "config.json")


def test_weights_that_are_no_safetensors(artefact):
    rewrite(artefact, "model.safetensors", b"\x80\x04cos\nsystem\n")
    refused(artefact, "model.safetensors: not a safetensors file")
    rewrite(artefact, "model.safetensors", (10**12).to_bytes(8, "little") + b"{}")
    refused(artefact, "model.safetensors: not a safetensors file")


def test_an_old_format_is_upgraded_step_by_step(artefact, monkeypatch):
    config = json.loads((artefact / "config.json").read_text())
    old = {"format": "trajlm.artefact/-1", "name": "toy"} | {
        k: config[k] for k in ("config", "spec")
    }
    rewrite(artefact, "config.json", json.dumps(old).encode())
    upgrades = {
        "trajlm.artefact/-1": lambda c: c | {"format": "trajlm.artefact/0"},
        "trajlm.artefact/0": lambda c: {
            "format": checkpoint.FORMAT,
            "algorithm": c["name"],
            "config": c["config"],
            "spec": c["spec"],
        },
    }
    monkeypatch.setattr(checkpoint, "UPGRADES", upgrades)
    assert load_artefact(artefact).config.width == 16
    monkeypatch.setattr(checkpoint, "UPGRADES", {"trajlm.artefact/-1": lambda c: c})
    refused(artefact, "format 'trajlm.artefact/-1' found, 'trajlm.artefact/1' needed")


# ---- checkpoints of a run -------------------------------------------------------------------


def test_a_damaged_optimizer_is_refused(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    path = tmp_path / "checkpoints/step-00000010/optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged"):
        toy.toy_trainer(tmp_path, resume=True).run()


def test_an_optimizer_with_a_missing_tensor_is_refused(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    folder = tmp_path / "checkpoints/step-00000010"
    tensors = load_file(folder / "optimizer.safetensors")
    assert "exp_avg/unused.weight" not in tensors
    del tensors["exp_avg/head.bias"]
    save_file(tensors, tmp_path / "changed")
    rewrite(folder, "optimizer.safetensors", (tmp_path / "changed").read_bytes())
    with pytest.raises(CheckpointError, match=r"missing tensors: exp_avg/head\.bias"):
        toy.toy_trainer(tmp_path, resume=True).run()


def test_a_checkpoint_without_manifest_is_never_resumed(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    (tmp_path / "checkpoints/step-00000010/manifest.json").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        toy.toy_trainer(tmp_path, resume=True).run()


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"format": "trajlm.trainer/1", "step": "x"}, "not a count of updates"),
        ({"format": "trajlm.trainer/1", "step": 10}, "must be mappings"),
        ({"format": "other"}, "format 'other' found"),
    ],
)
def test_a_trainer_file_that_is_nonsense(toy, tmp_path, state, match):
    toy.toy_trainer(tmp_path, steps=10).run()
    rewrite(tmp_path / "checkpoints/last", "trainer.json", json.dumps(state).encode())
    with pytest.raises(CheckpointError, match=match):
        toy.toy_trainer(tmp_path, resume=True).run()


@pytest.fixture
def kept(tmp_path):
    found = CheckpointArchive(tmp_path / "checkpoints", keep_last=2)
    found.open()
    return found


def test_purge_keeps_the_last_and_the_best(kept):
    for step in (1, 2, 3, 4, 5):
        kept.save(step, {"a": b"x"})
        if step == 2:
            kept.mark_best(2, metric="validation/loss", value=0.5)
    assert kept.steps == [2, 4, 5]
    assert (kept.root / "best").resolve() == kept.folder(2)
    assert kept.best == {"metric": "validation/loss", "value": 0.5, "step": 2}
    assert sorted(p.name for p in kept.root.iterdir() if not p.name.startswith("step-")) == [
        "best",
        "best.json",
        "last",
    ]


def test_purge_spares_the_one_just_written_though_older_in_steps(kept):
    for step in (100, 200, 50):
        kept.save(step, {"a": b"x"})
    assert 50 in kept.steps


def test_purge_waits_where_the_new_checkpoint_cannot_be_read_back(kept, monkeypatch, caplog):
    kept.save(1, {"a": b"x"})
    kept.save(2, {"a": b"x"})
    real = archive.write_folder

    def rotten(folder, files):
        real(folder, files)
        (folder / "a").write_bytes(b"y")

    monkeypatch.setattr(archive, "write_folder", rotten)
    kept.save(3, {"a": b"x"})
    assert kept.steps == [1, 2, 3]
    assert "no older checkpoint is deleted" in caplog.text


def test_purge_that_fails_is_warned_of(kept, monkeypatch, caplog):
    def refuse(path):
        if path.name.endswith(".purged.tmp"):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archive, "remove", refuse)
    for step in (1, 2, 3):
        kept.save(step, {"a": b"x"})
    assert kept.steps == [2, 3]
    assert "not deleted (Permission denied)" in caplog.text


def test_leftovers_are_cleared_and_damaged_ones_set_aside(kept, caplog):
    kept.save(1, {"a": b"x"})
    kept.save(2, {"a": b"x"})
    kept.mark_best(2, metric="validation/loss", value=0.5)
    (kept.root / "step-00000003.tmp").mkdir()
    (kept.root / "last.tmp").symlink_to("step-00000003")
    (kept.folder(2) / "a").write_bytes(b"y")
    kept.open()
    assert not list(kept.root.glob("*.tmp"))
    assert "half-written" in caplog.text
    assert kept.newest_valid() == 1
    assert kept.steps == [1]
    assert kept.best is None
    assert not (kept.root / "best").is_symlink()
    assert (kept.root / "last").resolve() == kept.folder(1)
    assert (kept.root / "step-00000002.damaged").is_dir()


def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    write_folder(folder, {"a": b"old"})

    def full(path, data, real=write_folder.__globals__["write_bytes"]):
        if path.name == "b":
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setitem(write_folder.__globals__, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            write_folder(folder, {"a": b"new", "b": b"new"})
    assert caught.value.exit_code == 7
    assert (folder / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    write_folder(folder, {"a": b"new"})
    assert (folder / "a").read_bytes() == b"new"


def test_a_read_only_folder_is_a_storage_error(toy, tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "place").write_text("a file where a folder should be")
    else:
        (tmp_path / "place").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="place"):
        save_artefact(toy.toy_model(), tmp_path / "place" / "artefact")


def test_a_moved_run_still_finds_its_checkpoints(toy, tmp_path):
    toy.toy_trainer(tmp_path / "run", steps=10).run()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert checkpoint.artefact_folder(tmp_path / "elsewhere").name == "step-00000010"
    with pytest.raises(CheckpointError, match="best"):
        checkpoint.artefact_folder(tmp_path / "elsewhere", which="best")
