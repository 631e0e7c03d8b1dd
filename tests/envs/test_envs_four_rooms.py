"""The four rooms: Gymnasium's checker, seeds, walls that nothing crosses, and a planner that arrives."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from trajlm.core.errors import EnvironmentFault
from trajlm.core.spec import Box, DictSpace
from trajlm.envs.four_rooms import (
    DOOR_WIDTH,
    DOORS,
    ENV_ID,
    GOAL_ENV_ID,
    LONGEST_STEP,
    MIDDLE,
    SIDE,
    STEP_LIMIT,
    SUCCESS_RADIUS,
    WALLS,
    FourRooms,
    is_free,
    room_of,
    way,
)
from trajlm.envs.four_rooms_planner import length_of, shortest_way, towards
from trajlm.envs.make import make_environment, make_vector, max_episode_steps

coordinates = st.floats(0.0, SIDE)
drawn = st.tuples(coordinates, coordinates).filter(lambda point: is_free(point, clearance=0.3))
floor = st.tuples(coordinates, coordinates).filter(lambda point: is_free(point, clearance=0.01))
displacements = st.tuples(st.floats(-20.0, 20.0), st.floats(-20.0, 20.0))


def in_a_wall(point: np.ndarray) -> bool:
    """Beside `is_free`, in other words: in the cross of the walls and in none of its doors."""
    x, y = point
    upright = abs(x - MIDDLE) < 0.2 and not any(
        door[0] == MIDDLE and abs(y - door[1]) < DOOR_WIDTH / 2 for door in DOORS.values()
    )
    level = abs(y - MIDDLE) < 0.2 and not any(
        door[1] == MIDDLE and abs(x - door[0]) < DOOR_WIDTH / 2 for door in DOORS.values()
    )
    return bool(upright or level)


@pytest.mark.parametrize("env_id", [ENV_ID, GOAL_ENV_ID])
def test_gymnasiums_checker_accepts_both_forms(env_id):
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(make_environment(env_id, render_mode="rgb_array"))
    assert max_episode_steps(env_id) == STEP_LIMIT


def test_a_name_that_is_not_quite_one_is_refused():
    make_environment(ENV_ID)
    with pytest.raises(EnvironmentFault, match="did you mean 'trajlm/FourRooms-v0'"):
        make_environment("trajlm/FourRoom-v0")


@given(floor, st.lists(displacements, min_size=1, max_size=5))
def test_no_displacement_however_long_crosses_a_wall(start, shifts):
    for shift in shifts:
        corners = np.array(way(start, shift))
        for one, other in zip(corners[:-1], corners[1:], strict=True):
            pieces = max(2, math.ceil(np.abs(other - one).max() / 0.02))
            for share in np.linspace(0.0, 1.0, pieces):
                point = one + share * (other - one)
                assert not in_a_wall(point)
                assert (point >= 0.0).all() and (point <= SIDE).all()
        start = tuple(corners[-1].tolist())
        assert is_free(start) and not in_a_wall(np.float32(start))


@given(floor, st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_the_way_is_straight_where_nothing_stands_and_slides_where_a_wall_does(start, dx, dy):
    end = way(start, (dx, dy))[-1]
    straight = (start[0] + dx, start[1] + dy)
    clear = all(
        is_free((start[0] + share * dx, start[1] + share * dy), clearance=0.01)
        for share in np.linspace(0.0, 1.0, 60)
    )
    if clear:
        np.testing.assert_allclose(end, straight, atol=1e-12)
    for moved, wanted in zip(np.subtract(end, start), (dx, dy), strict=True):
        assert -1e-12 <= moved * np.sign(wanted) <= abs(wanted) + 1e-12


def test_the_point_slides_along_a_wall_and_round_its_end_through_a_door():
    left, _, _, top = WALLS[0]
    assert way((left - 0.1, 1.0), (0.4, 0.3))[-1] == pytest.approx((left - 1e-3, 1.3))
    beyond = way((left - 0.1, top - 0.2), (0.4, 0.5))[-1]
    assert beyond == pytest.approx((left - 1e-3, top + 0.3))
    through = way(beyond, (1.0, 0.0))[-1]
    assert room_of(through) == 1


def test_seeds_say_everything():
    world, other = FourRooms(), FourRooms()
    for seed in range(20):
        one, info = world.reset(seed=seed)
        same, told = other.reset(seed=seed)
        np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(info["goal"], told["goal"])
        assert math.dist(one, info["goal"]) > SUCCESS_RADIUS
        assert is_free(world.position, clearance=0.29) and is_free(world.goal, clearance=0.29)
    starts = np.array([world.reset(seed=seed)[0] for seed in range(400)])
    rooms = np.bincount([room_of(start) for start in starts], minlength=4)
    assert (rooms > 60).all()


def test_start_and_goal_may_be_given_and_must_lie_on_the_floor():
    world = FourRooms()
    shown, info = world.reset(seed=0, options={"start": (1.0, 2.0), "goal": np.array([8.0, 9.0])})
    np.testing.assert_array_equal(shown, np.float32([1.0, 2.0]))
    np.testing.assert_array_equal(info["goal"], np.float32([8.0, 9.0]))
    for point in ((5.0, 5.0), (-1.0, 3.0), (3.0, 10.5)):
        with pytest.raises(ValueError, match="not on the floor"):
            world.reset(options={"goal": point})


def test_reaching_the_goal_ends_the_episode_with_the_only_reward():
    world = make_environment(ENV_ID)
    world.reset(seed=0, options={"start": (1.0, 1.0), "goal": (3.0, 1.0)})
    rewards, over = [], False
    while not over:
        shown, reward, over, truncated, _ = world.step(np.array([0.3, 0.0], np.float32))
        rewards.append(reward)
        assert not truncated
    assert rewards == [0.0, 0.0, 0.0, 0.0, 1.0] and math.dist(shown, (3.0, 1.0)) == pytest.approx(
        0.5
    )


def test_the_step_limit_truncates():
    world = make_environment(ENV_ID)
    world.reset(seed=0, options={"start": (1.0, 1.0), "goal": (9.0, 9.0)})
    ends = [world.step(np.zeros(2, np.float32))[2:4] for _ in range(STEP_LIMIT)]
    assert ends == [(False, False)] * (STEP_LIMIT - 1) + [(False, True)]


def test_an_action_beyond_the_bounds_is_cut_off():
    world = FourRooms()
    world.reset(seed=0, options={"start": (1.0, 1.0), "goal": (9.0, 9.0)})
    np.testing.assert_array_equal(world.step(np.array([9.0, -0.25]))[0], np.float32([1.5, 0.75]))


def test_the_picture_shows_the_point_the_goal_and_the_walls_where_they_are():
    world = FourRooms(render_mode="rgb_array")
    world.reset(seed=0, options={"start": (1.0, 8.0), "goal": (9.0, 2.0)})
    picture = world.render()
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8

    def colour(x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[int((SIDE - y) / SIDE * 256), int(x / SIDE * 256)].tolist())

    assert colour(1.0, 8.0) == (0, 114, 178)
    assert colour(9.0 + SUCCESS_RADIUS - 0.05, 2.0) == (213, 94, 0)
    assert colour(9.0, 2.0) == colour(3.0, 3.0) == (255, 255, 255)
    assert colour(5.0, 5.0) == colour(5.0, 1.0) == (70, 70, 70)
    assert all(colour(*door) == (255, 255, 255) for door in DOORS.values())
    assert FourRooms().render() is None


def test_steps_of_many_environments_tell_their_goals():
    vector = make_vector(ENV_ID, num_envs=3)
    step = vector.reset(seeds=np.array([1, 2, 3]))
    assert vector.observation_space == Box(shape=(2,), low=(0.0, 0.0), high=(SIDE, SIDE))
    worlds = [environment.unwrapped for environment in vector.environments]
    np.testing.assert_array_equal(step.goal, np.float32([world.goal for world in worlds]))
    later = vector.reset(np.array([False, True, False]), seeds=np.array([0, 9, 0]))
    assert (later.goal != step.goal).any(axis=1).tolist() == [False, True, False]
    moved = vector.step(np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(moved.goal, later.goal)
    assert make_vector("CartPole-v1", num_envs=2).reset(seeds=np.array([0, 1])).goal is None


def test_the_other_form_shows_the_same_goal():
    plain, vector = make_vector(ENV_ID, num_envs=2), make_vector(GOAL_ENV_ID, num_envs=2)
    assert isinstance(vector.observation_space, DictSpace)
    seeds = np.array([4, 5])
    one, other = plain.reset(seeds=seeds), vector.reset(seeds=seeds)
    np.testing.assert_array_equal(one.observation, other.observation["observation"])
    np.testing.assert_array_equal(one.goal, other.observation["desired_goal"])
    np.testing.assert_array_equal(one.goal, other.goal)


@given(floor, floor)
def test_the_shortest_way_leads_through_doors_and_no_neighbouring_way_is_shorter(start, goal):
    corners = shortest_way(start, goal)
    rooms = [room_of(start), room_of(goal)]
    assert len(corners) == 2 + bin(rooms[0] ^ rooms[1]).count("1")
    for corner in corners[1:-1]:
        assert is_free(corner, clearance=0.29) or MIDDLE in corner
        assert any(math.dist(corner, door) <= DOOR_WIDTH / 2 for door in DOORS.values())
    middles = [
        start,
        *(min(DOORS.values(), key=lambda d: math.dist(d, c)) for c in corners[1:-1]),
        goal,
    ]
    assert math.dist(start, goal) - 1e-9 <= length_of(corners) <= length_of(middles) + 1e-9


@given(drawn, drawn, st.floats(0.1, LONGEST_STEP))
def test_the_planner_arrives(start, goal, speed):
    """As soon as it can, but for what it slides along a door's jambs."""
    world = FourRooms()
    world.reset(seed=0, options={"start": start, "goal": goal})
    limit = math.ceil((length_of(shortest_way(start, goal)) + 3.0) / speed)
    for _ in range(limit):
        action = towards(world.position, goal, speed=speed)
        assert np.linalg.norm(action) <= speed + 1e-9
        if world.step(action)[2]:
            break
    assert math.dist(world.position, goal) <= SUCCESS_RADIUS
