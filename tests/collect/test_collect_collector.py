"""Collection: what a dataset holds, and that it depends on the seed alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("h5py")

from trajlm.collect import collector, pool
from trajlm.collect.behaviour import TIERS, body_facts
from trajlm.collect.collector import collect, tier_behaviours
from trajlm.collect.episodes import SLOTS, episode_seed, run_episodes
from trajlm.collect.worker import Runner, Task, pack, unpack
from trajlm.core.errors import EnvironmentFault, Interrupted, StorageError, UsageError
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari import read
from trajlm.envs.make import make_environment, make_vector

BODY = "halfcheetah"
LIMIT = 60


def same(one: Trajectory, other: Trajectory) -> bool:
    return (one.seed, one.terminated, one.truncated, sorted(one.columns)) == (
        *(other.seed, other.terminated, other.truncated),
        sorted(other.columns),
    ) and all(
        np.array_equal(column, other.columns[name]) and column.dtype == other.columns[name].dtype
        for name, column in one.columns.items()
    )


def task(behaviour: str, *, first: int, count: int, seed: int = 0) -> Task:
    return Task(body=BODY, behaviour=behaviour, seed=seed, first=first, count=count)


class ShortRunner(Runner):
    """Gives made-up episodes of 1 to LIMIT steps: quick, and of many lengths."""

    def run(self, task: Task) -> list[Trajectory]:
        episodes = []
        for number in range(task.first, task.first + task.count):
            name = f"{task.body}/{task.behaviour}"
            seed = episode_seed(task.seed, behaviour=name, episode=number)
            steps = 1 + seed % LIMIT
            columns = {
                "actions": np.zeros((steps, 6), np.float32),
                "observations": np.full((steps + 1, 17), number, np.float32),
                "rewards": np.ones(steps),
            }
            trajectory = Trajectory(columns=columns, terminated=True, truncated=False, seed=seed)
            episodes.append(trajectory)
        return episodes


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "Runner", ShortRunner)


# ---- episodes -----------------------------------------------------------------------------------


def test_an_episode_does_not_depend_on_its_companions() -> None:
    runner = Runner()
    together = runner.run(task("medium", first=10, count=2))
    alone = Runner().run(task("medium", first=11, count=1))
    assert same(together[1], alone[0])
    assert not same(together[0], together[1])


def test_recorded_actions_are_what_the_environment_executed() -> None:
    """Replaying the actions from the recorded seed gives the observations and rewards."""
    (episode,) = Runner().run(task("expert", first=3, count=1))
    actions = episode.columns["actions"]
    assert actions.dtype == np.float32
    assert np.abs(actions).max() == 1.0  # the expert is clipped now and then
    environment = make_environment("HalfCheetah-v5")
    observation, _ = environment.reset(seed=episode.seed)
    for number, action in enumerate(actions):
        expected = episode.columns["observations"][number]
        np.testing.assert_array_equal(expected, observation.astype(np.float32))
        observation, reward, terminated, truncated, _ = environment.step(action)
        assert reward == episode.columns["rewards"][number]
        assert terminated == (episode.terminated and number == len(episode) - 1)
        assert (terminated or truncated) == (number == len(episode) - 1)
    np.testing.assert_array_equal(
        episode.columns["observations"][-1], observation.astype(np.float32)
    )


def test_finished_slots_stop_while_others_go_on() -> None:
    """Hopper under uniform actions falls at different steps."""
    environment = make_vector("Hopper-v5", num_envs=SLOTS)
    space = environment.action_space
    policy = collector.load_behaviour(BODY, "random")
    bounds = {key: np.asarray(getattr(space, key), np.float32) for key in ("low", "high")}
    policy = type(policy)(name="hopper/random", facts={}, **bounds)
    episodes = run_episodes(
        policy, environment, behaviour="hopper/random", seed=0, first=0, count=SLOTS
    )
    lengths = [len(episode) for episode in episodes]
    assert len(set(lengths)) > 3
    assert max(lengths) < 500
    for episode in episodes:
        assert episode.terminated
        assert not episode.truncated
        assert episode.has_last_observation
        assert episode.columns["actions"].shape == (len(episode), 3)


def test_episodes_pass_between_processes_without_loss(short_episodes: None) -> None:
    episodes = ShortRunner().run(task("expert", first=0, count=4))
    assert all(map(same, unpack(pack(episodes)), episodes))


# ---- datasets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`medium-expert` with 4,000 steps, by number of processes."""
    made: dict[int, Path] = {}

    def by_processes(processes: int) -> Path:
        if processes not in made:
            root = tmp_path_factory.mktemp(f"minari-{processes}")
            made[processes] = collect(
                BODY, "medium-expert", steps=4_000, seed=3, root=root, processes=processes
            )
        return made[processes]

    return by_processes


def test_the_number_of_processes_changes_no_bit(collected: Callable[[int], Path]) -> None:
    for name in ("main_data.hdf5", "metadata.json"):
        digests = {
            hashlib.sha256((collected(processes) / "data" / name).read_bytes()).hexdigest()
            for processes in (1, 2)
        }
        assert len(digests) == 1, name


def test_a_tier_of_two_shares_the_steps(collected: Callable[[int], Path]) -> None:
    store = read(collected(1))
    assert store.env_id == "HalfCheetah-v5"
    assert store.lengths.tolist() == [1000] * 4
    assert store.truncated.all()
    assert not store.terminated.any()
    facts = body_facts(BODY)
    assert (abs(store.returns[:2] - facts["medium_return"]) < 1_500).all()
    assert store.returns[2:].max() > 0.7 * facts["expert_return"]
    expected = [
        episode_seed(3, behaviour=f"{BODY}/{name}", episode=number)
        for name in ("medium", "expert")
        for number in range(2)
    ]
    assert store.seeds.tolist() == expected
    assert store.metadata["ref_min_score"] == facts["random_return"]
    assert store.metadata["ref_max_score"] == facts["expert_return"]


def test_minari_reads_it_back(
    collected: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    folder = collected(1)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parents[2]))
    dataset = minari.load_dataset("trajlm/halfcheetah/medium-expert-v0")
    store = read(folder)
    assert (dataset.total_episodes, dataset.total_steps) == (4, 4_000)
    for number, episode in enumerate(dataset.iterate_episodes()):
        ours = store.episode(number)
        for name, column in (("observations", episode.observations), ("actions", episode.actions)):
            np.testing.assert_array_equal(column, ours.columns[name])
        np.testing.assert_allclose(episode.rewards.sum(), ours.episode_return, rtol=1e-6)
    assert dataset.recover_environment().spec.id == "HalfCheetah-v5"
    returns = [body_facts(BODY)["random_return"], body_facts(BODY)["expert_return"]]
    np.testing.assert_allclose(minari.get_normalized_score(dataset, np.array(returns)), [0, 1])


@pytest.mark.usefixtures("short_episodes")
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("steps", [997, 3_001])
def test_a_share_is_the_shortest_run_of_whole_episodes(
    tmp_path: Path, tier: str, steps: int
) -> None:
    told: list[tuple[int, int]] = []
    folder = collect(
        *(BODY, tier),
        steps=steps,
        root=tmp_path,
        processes=1,
        progress=lambda done, total: told.append((done, total)),
    )
    store = read(folder)
    names = tier_behaviours(BODY, tier)
    start = 0
    for number, name in enumerate(names):
        share = steps // len(names) + (number < steps % len(names))
        lengths = lengths_of(name, share)
        mine = store.select(np.arange(start, start + len(lengths)))
        assert mine.lengths.tolist() == lengths
        numbers = [mine.rows("observations", row)[0, 0] for row in range(len(mine))]
        assert numbers == list(range(len(lengths)))
        start += len(lengths)
    assert start == len(store)
    assert steps <= store.num_steps < steps + LIMIT * len(names)
    assert told[0] == (0, steps)
    assert told[-1] == (steps, steps)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def lengths_of(name: str, share: int) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < share:
        seed = episode_seed(0, behaviour=f"{BODY}/{name}", episode=len(lengths))
        lengths.append(1 + seed % LIMIT)
    return lengths


def test_tiers_are_made_of_these_behaviours() -> None:
    assert tier_behaviours(BODY, "random") == ("random",)
    assert tier_behaviours(BODY, "medium-expert") == ("medium", "expert")
    assert tier_behaviours(BODY, "replay") == tuple(f"replay-{number}" for number in range(8))
    with pytest.raises(UsageError, match="unknown tier 'experts'; did you mean 'expert'"):
        tier_behaviours(BODY, "experts")


@pytest.mark.usefixtures("short_episodes")
def test_another_seed_gives_other_episodes(tmp_path: Path) -> None:
    def seeds(seed: int) -> set[int]:
        folder = collect(
            BODY, "expert", steps=500, seed=seed, root=tmp_path, processes=1, overwrite=True
        )
        return set(read(folder).seeds.tolist())

    assert seeds(0) == seeds(0)
    assert not seeds(0) & seeds(1)


# ---- what goes wrong ----------------------------------------------------------------------------


def test_what_cannot_be_collected_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown body"):
        collect("ant", "expert", steps=10, root=tmp_path)
    with pytest.raises(UsageError, match="steps must be 2 or more"):
        collect(BODY, "medium-expert", steps=1, root=tmp_path)
    with pytest.raises(UsageError, match="processes must be 1 or more"):
        collect(BODY, "expert", steps=10, root=tmp_path, processes=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short_episodes")
def test_a_dataset_that_exists_stays_unless_overwritten(tmp_path: Path) -> None:
    folder = collect(BODY, "expert", steps=100, root=tmp_path, processes=1)
    before = (folder / "data" / "metadata.json").read_text()
    with pytest.raises(StorageError, match="exists already; pass overwrite"):
        collect(BODY, "expert", steps=200, root=tmp_path, processes=1)
    assert (folder / "data" / "metadata.json").read_text() == before
    collect(BODY, "expert", steps=200, root=tmp_path, processes=1, overwrite=True)
    assert json.loads((folder / "data" / "metadata.json").read_text())["total_steps"] >= 200


def test_an_interrupt_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Runner, task: Task) -> list[Trajectory]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run", interrupted)
    with pytest.raises(Interrupted) as caught:
        collect(BODY, "expert", steps=1_000, root=tmp_path, processes=1)
    assert caught.value.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_the_workers_too(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trajlm.collect.collector import collect\n"
        "from trajlm.core.errors import Interrupted\n"
        "told = lambda done, total: print('running', flush=True)\n"
        "try:\n"
        f"    collect('{BODY}', 'expert', steps=10**7, root=Path(sys.argv[1]), processes=2, progress=told)\n"
        "except Interrupted as error:\n"
        "    print(error); sys.exit(error.exit_code)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pool.__file__).parents[2])},
        # A test run started in the background ignores SIGINT, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130, rest
    assert rest == "interrupted; no dataset was written\n"
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def children(process: int) -> list[int]:
    return [
        int(number)
        for tasks in Path(f"/proc/{process}/task").glob("*/children")
        for number in tasks.read_text().split()
    ]


def test_a_worker_that_dies_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = pool.WorkerPool(1)
    try:
        workers._workers[0].kill()
        with pytest.raises(EnvironmentFault, match="a collecting process ended"):
            workers.submit(task("expert", first=0, count=1)).result(timeout=30)
    finally:
        workers.close()


def test_a_worker_passes_errors_on() -> None:
    workers = pool.WorkerPool(1)
    try:
        wrong = Task(body="nobody", behaviour="expert", seed=0, first=0, count=1)
        with pytest.raises(EnvironmentFault, match="unknown body 'nobody'"):
            workers.submit(wrong).result(timeout=60)
        assert len(workers.submit(task("random", first=0, count=1)).result(timeout=60)) == 1
    finally:
        workers.close()


def test_a_worker_ends_with_its_parent() -> None:
    worker = pool._start()
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(timeout=30) == 0
    assert worker.stdout is not None
    worker.stdout.close()
