"""Minari's HDF5 form: round trips with the real package, and files that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trajlm.core.errors import DataError, StorageError
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space
from trajlm.core.trajectory import Trajectory
from trajlm.data.doctor import check
from trajlm.data.load import load_dataset
from trajlm.data.sources import minari_form
from trajlm.data.sources.minari import read, write
from trajlm.data.sources.minari_form import find, folder_of, space_from_minari
from trajlm.data.sources.minari_writer import space_to_minari
from trajlm.data.sources.synthetic import synthetic

h5py = pytest.importorskip("h5py")
ID = "trajlm/test/box-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "root"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "cache"))
    return folder


def written(root: Path, *, episodes: int = 12, name: str = "short", **keywords: Any) -> Path:
    store = synthetic(name, episodes=episodes)
    return write(store, dataset_id=ID, env_id="HalfCheetah-v5", **keywords)


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)


def edit_metadata(folder: Path, **changes: Any) -> None:
    path = folder / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


@pytest.mark.parametrize("name", ["short", "bounds", "discrete", "multidiscrete", "dict", "image"])
def test_what_is_written_is_read_back(root: Path, name: str) -> None:
    store = synthetic(name, episodes=12)
    write(store, dataset_id=ID, reference_scores=(-1.0, 9.0))
    found = load_dataset(f"minari:{ID}")
    assert found.name == ID
    assert found.has_last_observation
    assert found.observation_space == store.observation_space
    assert found.action_space == store.action_space
    assert found.metadata["ref_max_score"] == 9.0
    for attribute in ("lengths", "terminated", "truncated", "unfinished", "seeds"):
        np.testing.assert_array_equal(getattr(found, attribute), getattr(store, attribute))
    for episode in range(12):
        for column in store.column_names:
            ours, theirs = found.rows(column, episode), store.rows(column, episode)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["short", "discrete", "multidiscrete", "dict", "image"])
def test_minari_reads_what_we_write(root: Path, name: str) -> None:
    minari = pytest.importorskip("minari")
    store = synthetic(name, episodes=12)
    write(store, dataset_id=ID, env_id="HalfCheetah-v5", reference_scores=(-1.0, 9.0))
    dataset = minari.load_dataset(ID)
    assert (dataset.total_episodes, dataset.total_steps) == (12, store.num_steps)
    assert dataset.env_spec.id == "HalfCheetah-v5"
    assert dataset.env_spec.entry_point is None
    assert minari.get_normalized_score(dataset, 9.0) == 1.0
    assert ID in minari.list_local_datasets()
    facts = list(dataset.storage.get_episode_metadata(range(12)))
    assert [fact["seed"] for fact in facts] == store.seeds.tolist()
    for number, episode in enumerate(dataset.iterate_episodes()):
        assert episode.id == number
        assert bool(episode.terminations[-1]) == store.terminated[number]
        assert bool(episode.truncations[-1]) == store.truncated[number]
        assert not episode.terminations[:-1].any()
        np.testing.assert_array_equal(episode.rewards, store.rows("rewards", number))
        np.testing.assert_array_equal(episode.actions, store.rows("actions", number))
        seen = episode.observations
        for column in store.column_names:
            if column.startswith("observations"):
                value = seen[column.split("/")[1]] if isinstance(seen, dict) else seen
                np.testing.assert_array_equal(value, store.rows(column, number))
    assert dataset.action_space.contains(episode.actions[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_we_read_what_minari_writes(root: Path) -> None:
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    buffers = [
        EpisodeBuffer(
            id=None,
            seed=5,
            observations=rng.standard_normal((n + 1, 3)),
            actions=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            rewards=np.arange(float(n)),
            terminations=np.arange(n) == n - 1,
            truncations=np.zeros(n, bool),
        )
        for n in (3, 5)
    ]
    minari.create_dataset_from_buffers(
        "mujoco/fake/medium-v3",
        buffer=buffers,
        env="CartPole-v1",
        observation_space=space,
        action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    )
    store = load_dataset("mujoco/fake/medium-v3")
    assert (store.env_id, store.lengths.tolist()) == ("CartPole-v1", [3, 5])
    assert store.seeds.tolist() == [5, 5]
    assert store.action_space == Box(shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
    np.testing.assert_allclose(
        store.rows("observations", 1), buffers[1].observations, rtol=1e-6, atol=1e-6
    )
    assert store.metadata["findings"] == []


def test_episodes_come_in_numeric_order(root: Path) -> None:
    store = read(written(root, episodes=12))
    np.testing.assert_array_equal(store.lengths, synthetic("short", episodes=12).lengths)


def test_a_folder_and_the_file_itself_are_references(root: Path) -> None:
    folder = written(root)
    references = (folder, folder / "data", folder / "data" / "main_data.hdf5")
    assert len({load_dataset(str(path)).content_hash for path in references}) == 1


# ---- writing --------------------------------------------------------------------------------


def test_an_existing_dataset_is_not_overwritten_unasked(root: Path) -> None:
    folder = written(root)
    before = (folder / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(StorageError, match="exists already; pass overwrite=True"):
        written(root, episodes=3)
    assert (folder / "data" / "main_data.hdf5").read_bytes() == before
    written(root, episodes=3, overwrite=True)
    assert len(load_dataset(ID)) == 3
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_failed_write_leaves_nothing(root: Path) -> None:
    def broken() -> Any:
        yield from [synthetic("short").episode(0)]
        raise RuntimeError("collector died")

    store = synthetic("short")
    spaces = {
        "observation_space": store.observation_space,
        "action_space": store.action_space,
    }
    with pytest.raises(RuntimeError, match="collector died"):
        write(broken(), dataset_id=ID, **spaces)
    with pytest.raises(DataError, match="no episodes"):
        write(iter(()), dataset_id=ID, **spaces)
    columns = {**store.episode(0).columns, "observations": store.rows("observations", 0)[:-1]}
    short = Trajectory(columns=columns, terminated=True, truncated=False)
    with pytest.raises(DataError, match="episode 0 has no last observation"):
        write([short], dataset_id=ID, **spaces)
    assert list((root / "trajlm" / "test").iterdir()) == []


def test_an_unwritable_root_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write(synthetic("short"), dataset_id=ID, root=tmp_path / "file")


def test_the_folder_honours_the_umask(root: Path) -> None:
    folder = written(root)
    expected = 0o777 & ~_umask()
    assert folder.stat().st_mode & 0o777 == expected
    assert (folder / "data" / "main_data.hdf5").stat().st_mode & 0o777 == expected & 0o666


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dataset_id",
    [
        *("../outside-v0", "a/../../b-v0", "/etc/passwd-v0", "~/x-v0", "a\0b-v0", "a\\b-v0"),
        *("a//b-v0", "./a-v0", "name", "a-v0/", "", "a/b-v", "C:/a-v0", "a-v0\n", "ä/b-v0"),
    ],
)
def test_ids_that_are_none_are_refused(root: Path, dataset_id: str) -> None:
    for use in (folder_of, find, lambda i: load_dataset(f"minari:{i}")):
        with pytest.raises(DataError, match="no Minari dataset id"):
            use(dataset_id)
    with pytest.raises(DataError, match="no Minari dataset id"):
        write(synthetic("short"), dataset_id=dataset_id)


@pytest.mark.parametrize("part", ["trajlm", "trajlm/test/box-v0", "trajlm/test/box-v0/data"])
def test_links_out_of_the_root_are_refused(root: Path, tmp_path: Path, part: str) -> None:
    elsewhere = write(synthetic("short"), dataset_id=ID, root=tmp_path / "other")
    outside = tmp_path / "other" / part
    (root / part).parent.mkdir(parents=True, exist_ok=True)
    (root / part).symlink_to(outside, target_is_directory=True)
    assert elsewhere.is_dir()
    with pytest.raises(DataError, match="a link that leaves"):
        load_dataset(ID)
    with pytest.raises(DataError, match="a link that leaves"):
        write(synthetic("short"), dataset_id=ID, overwrite=True)


def test_our_own_missing_ids_name_the_collector(root: Path) -> None:
    with pytest.raises(DataError, match=r"run: trajlm collect hopper/medium$"):
        load_dataset("trajlm/hopper/medium-v0")


def test_a_missing_id_is_downloaded_or_names_the_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="run: minari download mujoco/hopper/medium-v0"):
        load_dataset("mujoco/hopper/medium-v0", download=False)
    original, commands = subprocess.run, []

    def offline(command: list[str], **keywords: Any) -> Any:
        commands.append(command)
        assert keywords["env"]["MINARI_DATASETS_PATH"] == str(root)
        failing = [sys.executable, "-c", "raise SystemExit('no route to host')"]
        return original(failing, **keywords)

    monkeypatch.setattr(minari_form.subprocess, "run", offline)
    with pytest.raises(DataError, match=r"minari download mujoco/h/m-v0 \(no route to host\)") as e:
        load_dataset("minari:mujoco/h/m-v0")
    assert e.value.exit_code == 3
    assert commands[0][-1] == "mujoco/h/m-v0"

    def online(command: list[str], **keywords: Any) -> Any:
        write(synthetic("short"), dataset_id=command[-1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(minari_form.subprocess, "run", online)
    assert len(load_dataset("minari:mujoco/h/m-v0")) == 40


# ---- files that lie ---------------------------------------------------------------------------


def replace_rewards(file: Any, rows: int) -> None:
    del file["episode_2/rewards"]
    file["episode_2/rewards"] = np.ones(rows, np.float32)


def test_lengths_that_disagree_name_the_episode(root: Path) -> None:
    folder = written(root)
    edit(folder, lambda file: replace_rewards(file, 50))
    with pytest.raises(DataError, match=r"D002: episode 2: lengths disagree.*rewards 50"):
        load_dataset(ID)
    kept = load_dataset(ID, on_bad="keep")
    assert len(kept) == 11
    assert kept.metadata["file_episodes"] == [0, 1, *range(3, 12)]
    assert check(kept)[0].rule == "D002"
    with pytest.raises(DataError, match="D013"):
        load_dataset(ID, on_bad="drop-episode")


def test_the_episode_is_named_by_its_number_in_the_file(root: Path) -> None:
    folder = written(root)

    def change(file: Any) -> None:
        replace_rewards(file, 50)
        file["episode_7/rewards"][0] = np.nan
        file.attrs["x"] = 1

    edit(folder, change)
    edit_metadata(folder, total_steps=None)
    with pytest.raises(DataError, match="and 1 more findings"):
        load_dataset(ID)
    findings = check(load_dataset(ID, on_bad="keep"))
    messages = [f.message for f in findings if f.rule == "D001"]
    assert messages[0].startswith("rewards is nan at episode 7, step 0")
    dropped = load_dataset(ID, on_bad="drop-episode")
    assert dropped.metadata["dropped"] == [2, 7]
    assert len(dropped) == 10
    assert not [f for f in check(dropped) if f.severity == "error"]


def empty_episode(file: Any) -> None:
    for name in ("actions", "rewards", "terminations", "truncations"):
        data = file[f"episode_1/{name}"][:0]
        del file[f"episode_1/{name}"]
        file[f"episode_1/{name}"] = data
    first = file["episode_1/observations"][:1]
    del file["episode_1/observations"]
    file["episode_1/observations"] = first


def test_an_empty_episode_is_refused(root: Path) -> None:
    edit(written(root), empty_episode)
    with pytest.raises(DataError, match="D003: episode 1 has no steps"):
        load_dataset(ID)
    assert "D003" in {f.rule for f in check(load_dataset(ID, on_bad="keep"))}


def test_end_flags_inside_an_episode_and_both_at_its_end(root: Path) -> None:
    folder = written(root, name="box")

    def change(file: Any) -> None:
        file["episode_3/truncations"][4] = True
        file["episode_5/terminations"][-1] = True
        file["episode_5/truncations"][-1] = True
        file["episode_6/terminations"][-1] = False
        file["episode_6/truncations"][-1] = False

    edit(folder, change)
    with pytest.raises(DataError, match="D006: episode 3, step 4: truncations is set"):
        load_dataset(ID)
    store = load_dataset(ID, on_bad="drop-episode")
    assert store.metadata["dropped"] == [3]
    rules = {f.rule: f for f in check(store)}
    assert rules["D004"].episodes == (5,)
    assert rules["D005"].episodes == (6,)
    assert store.terminated[4]
    assert not store.truncated[4]
    assert store.unfinished[5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_episodes": 13}, "total_episodes is declared 13, the file holds 12"),
        ({"total_steps": 1}, "total_steps is declared 1, the file holds"),
    ],
)
def test_totals_are_recounted(root: Path, change: dict[str, int], message: str) -> None:
    edit_metadata(written(root), **change)
    with pytest.raises(DataError, match=message):
        load_dataset(ID)


def test_missing_and_renumbered_episodes_are_found(root: Path) -> None:
    folder = written(root)
    edit(folder, lambda file: file["episode_4"].attrs.modify("id", 9))
    with pytest.raises(DataError, match="D013: episode_4 declares the id 9"):
        load_dataset(ID)
    edit(folder, lambda file: file.__delitem__("episode_4"))
    with pytest.raises(DataError, match="D013: episode_4 is missing: 11 episodes"):
        load_dataset(ID)


def external_link(file: Any) -> None:
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = h5py.ExternalLink("other.hdf5", "/rewards")


def soft_link(file: Any) -> None:
    del file["episode_1"]
    file["episode_1"] = h5py.SoftLink("/episode_0")


def wrong_dims(file: Any) -> None:
    data = file["episode_1/observations"][:, :3]
    del file["episode_1/observations"]
    file["episode_1/observations"] = data


def missing_actions(file: Any) -> None:
    del file["episode_1/actions"]


def group_instead(file: Any) -> None:
    del file["episode_1/rewards"]
    file.create_group("episode_1/rewards")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (external_link, "episode_1/rewards is a soft or external link"),
        (soft_link, "episode_1 is a soft or external link"),
        (wrong_dims, r"episode_1/observations has shape \(\d+, 3\), the declared space asks"),
        (missing_actions, "episode_1/actions is missing"),
        (group_instead, "episode_1/rewards is no dataset"),
    ],
)
def test_hostile_groups_are_refused(
    root: Path, attack: Callable[[Any], None], message: str
) -> None:
    edit(written(root), attack)
    with pytest.raises(DataError, match=message):
        load_dataset(ID, on_bad="keep")


def test_jpeg_images_are_refused_by_name(root: Path) -> None:
    folder = written(root, name="image", episodes=3)

    def change(file: Any) -> None:
        rows = len(file["episode_0/observations"])
        del file["episode_0/observations"]
        file.create_dataset("episode_0/observations", (rows,), h5py.vlen_dtype(np.uint8))

    edit(folder, change)
    with pytest.raises(DataError, match="jpeg_encoding=False"):
        load_dataset(ID)


# ---- metadata ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ("[" * 200_000, "not JSON"),
        ('{"data_format": "arrow"}', "only hdf5 is read yet"),
        ("{}", "observation_space is not declared"),
        ('{"observation_space": 3}', "observation_space is not declared"),
        ('{"observation_space": "{"}', "observation_space is damaged"),
        ('{"observation_space": "[]"}', "observation_space is damaged"),
        ('{"observation_space": "{\\"type\\": \\"Text\\"}"}', "'Text' are not supported"),
    ],
)
def test_broken_metadata_is_one_line(root: Path, text: str, message: str) -> None:
    folder = written(root)
    (folder / "data" / "metadata.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(ID)
    assert len(str(caught.value).splitlines()) == 1


def test_metadata_is_read_up_to_a_bound(root: Path) -> None:
    folder = written(root)
    with (folder / "data" / "metadata.json").open("ab") as file:
        file.truncate(minari_form.MAX_METADATA_BYTES + 1)
    with pytest.raises(DataError, match="larger than 16 MiB"):
        load_dataset(ID)


def test_nothing_of_env_spec_but_the_id_is_used(root: Path, tmp_path: Path) -> None:
    folder = written(root)
    marker = tmp_path / "ran"
    spec = {"id": "Hopper-v5", "entry_point": "os:mkdir", "kwargs": {"path": str(marker)}}
    edit_metadata(folder, env_spec=json.dumps(spec))
    assert load_dataset(ID).env_id == "Hopper-v5"
    edit_metadata(folder, env_spec=json.dumps({**spec, "id": "os:Hopper-v5"}))
    assert load_dataset(ID).env_id is None
    edit_metadata(folder, observation_space=None)
    with pytest.raises(DataError, match="not declared"):
        load_dataset(ID)
    assert not marker.exists()


def test_versions_before_metadata_json(root: Path) -> None:
    folder = written(root)
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.unlink()
    edit(folder, lambda file: file.attrs.update({k: v for k, v in metadata.items() if v}))
    store = load_dataset(ID)
    assert (store.name, store.env_id, len(store)) == (ID, "HalfCheetah-v5", 12)


def test_arrow_is_refused_with_the_way_out(root: Path) -> None:
    data = root / ID / "data"
    (data / "0").mkdir(parents=True)
    (data / "0" / "part-0.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataError, match="data_format='hdf5'"):
        load_dataset(ID)


# ---- spaces ---------------------------------------------------------------------------------

SPACES: list[Space] = [
    Box(shape=(2, 2), low=(-1.0,) * 4, high=(1.0, 2.0, 3.0, float("inf"))),
    Box(shape=(), dtype="float64", low=(0.0,), high=(1.0,)),
    Box(shape=(3,), dtype="uint8", low=(0.0,) * 3, high=(255.0,) * 3),
    Discrete(n=5, start=-2),
    MultiDiscrete(nvec=(2, 9)),
    DictSpace(subspaces={"a": Discrete(n=2), "b": DictSpace(subspaces={"c": Box(shape=(1,),
              low=(0.0,), high=(1.0,))})}),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)
def test_spaces_survive_minaris_json(space: Space) -> None:
    text = json.dumps(space_to_minari(space))
    assert space_from_minari(text, where="space") == space
    serialization = pytest.importorskip("minari.serialization")
    theirs = serialization.serialize_space(serialization.deserialize_space(text))
    assert space_from_minari(theirs, where="space") == space


def test_multi_binary_is_two_choices_each() -> None:
    found = space_from_minari('{"type": "MultiBinary", "n": 3}', where="space")
    assert found == MultiDiscrete(nvec=(2, 2, 2), dtype="int8")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Box", "shape": [2], "dtype": "float32", "low": [0], "high": [1, 2, 3]}',
        '{"type": "Box", "shape": [2], "dtype": "float32", "low": [NaN, 0], "high": [1, 2]}',
        '{"type": "Box", "shape": [1000000, 1000000], "dtype": "f4", "low": 0, "high": 1}',
        '{"type": "Box", "shape": [-1], "dtype": "float32", "low": 0, "high": 1}',
        '{"type": "Box", "shape": [1], "dtype": "object", "low": 0, "high": 1}',
        '{"type": "Discrete", "n": 0}',
        '{"type": "Discrete", "n": true}',
        '{"type": "MultiDiscrete", "nvec": [2], "start": [1], "dtype": "int64"}',
        '{"type": "Dict", "subspaces": {"../a": {"type": "Discrete", "n": 2}}}',
        '{"type": "Tuple", "subspaces": []}',
        '{"type": ["Box"]}',
        "null",
        '{"type": "Dict", "subspaces": ' * 12 + "{}" + "}" * 12,
    ],
)
def test_spaces_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="observation_space"):
        space_from_minari(text, where="observation_space")
