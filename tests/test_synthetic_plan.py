"""What a synthetic scene is planned to hold: classes, speeds, room for all, and no hint of speed in one frame."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from scenes.synthetic.catalogue import KINDS
from scenes.synthetic.clock import set_clock
from scenes.synthetic.curves import integrate_curvature, parallel
from scenes.synthetic.motion import SpeedProfile, plan_drive
from scenes.synthetic.occupancy import rectangles_overlap
from scenes.synthetic.options import SENSED_RADIUS_M, WorldOptions
from scenes.synthetic.plan import ScenePlan, plan_scene
from scenes.synthetic.rig import EGO_CENTER_FORWARD_M, EGO_SIZE_WLH_M, MOUNTS, calibrate
from scenes.synthetic.scene_names import NO_CAN_BUS, scene_names
from scenes.synthetic.things import PACES, Spot, draw_track
from scenes.synthetic.town import Road, plan_town
from scenes.synthetic.view import ahead_of, footprints
from schemas.boxes import CLASS_NAMES
from schemas.frames import CAMERAS

OPTIONS = WorldOptions()


@pytest.fixture(scope="module")
def plans() -> list[ScenePlan]:
    """The first four scenes of each split at the demo's size."""
    return [plan_scene(OPTIONS, name) for names in scene_names(OPTIONS).values() for name in names[:4]]


def test_the_demo_has_about_four_thousand_frames_under_official_names() -> None:
    names = scene_names(OPTIONS)
    assert sum(map(len, names.values())) * OPTIONS.frames_per_scene == 4000
    assert len({name for split in names.values() for name in split}) == 200
    assert not any(int(name[-4:]) in NO_CAN_BUS for split in names.values() for name in split)


def test_an_empty_world_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one scene"):
        WorldOptions(train_scenes=0, tune_scenes=0, val_scenes=0)


def test_classes_are_in_the_order_of_the_schemas() -> None:
    assert tuple(KINDS) == CLASS_NAMES
    assert tuple(MOUNTS) == CAMERAS


def test_every_scene_has_every_class_within_reach(plans: list[ScenePlan]) -> None:
    for plan in plans:
        reach = Counter[str]()
        for thing in plan.things:
            gap = np.linalg.norm(thing.lidar_poses[:, :2] - plan.lidar_ego_poses[:, :2], axis=1)
            reach[thing.name] += int((gap < SENSED_RADIUS_M).sum())
        assert min(reach[name] for name in CLASS_NAMES) >= 8, plan.name
        assert 15 < sum(reach.values()) / len(plan.lidar_ego_poses) < 50


def test_speeds_spread_widely_within_each_class(plans: list[ScenePlan]) -> None:
    for name, kind in KINDS.items():
        speeds = np.concatenate([thing.speed_mps for plan in plans for thing in plan.things if thing.name == name])
        if kind.top_mps == 0:
            assert (speeds == 0).all()
            continue
        moving = speeds[speeds > 0]
        assert 0.15 < (speeds == 0).mean() < 0.65, name
        assert np.quantile(moving, 0.9) > 2 * np.quantile(moving, 0.2), name
        assert moving.max() > 0.45 * kind.top_mps, name


def test_some_drives_turn_and_some_stand() -> None:
    drives = [plan_town(np.random.default_rng(number), 10.0).drive.poses(np.arange(20) * 0.5) for number in range(40)]
    turned = [np.ptp(poses[:, 2]) for poses in drives]
    driven = [np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1).sum() for poses in drives]
    assert sum(turn > 1.0 for turn in turned) >= 3
    assert sum(length == 0 for length in driven) >= 1
    assert sum(length > 40 for length in driven) >= 5


def test_nothing_ever_touches_anything(plans: list[ScenePlan]) -> None:
    for plan in plans[:3]:
        ego = ahead_of(plan.lidar_ego_poses, EGO_CENTER_FORWARD_M)
        sizes = np.concatenate([plan.body_sizes_lwh_m, np.array([EGO_SIZE_WLH_M])[:, [1, 0, 2]]])
        for frame in range(len(ego)):
            things = [thing.lidar_poses[frame] for thing in plan.things] + [block.pose for block in plan.blocks]
            poses = np.concatenate([np.array(things), ego[frame : frame + 1]])
            first, second = np.triu_indices(len(poses), k=1)
            half = sizes[:, :2] / 2
            assert not rectangles_overlap(poses[first], half[first], poses[second], half[second]).any()


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(CLASS_NAMES), bend=st.floats(-0.02, 0.02))
def test_place_and_heading_do_not_tell_the_pace(seed: int, name: str, bend: float) -> None:
    """The same draw at another pace stands at the same spot, facing the same way: a single frame hides the speed."""
    arc = np.arange(-60, 60, 0.5)
    road = Road(integrate_curvature(arc, np.full(len(arc), bend), np.zeros(3)), 2, None)
    kind, spot = KINDS[name], Spot(road, 3.0, 4.0, 10.0)
    for place in kind.places:
        tracks = [draw_track(np.random.default_rng(seed), kind, place, pace, spot) for pace in PACES]
        poses = np.stack([track.poses(np.array([spot.at_s]))[0] for track in tracks])
        np.testing.assert_allclose(poses, poses[:1].repeat(len(PACES), axis=0), atol=1e-9)


@settings(max_examples=100)
@given(st.lists(st.floats(-6, 6), min_size=4, max_size=4), st.lists(st.floats(0.3, 4), min_size=4, max_size=4))
def test_overlap_agrees_with_polygon_clipping(places: list[float], halves: list[float]) -> None:
    one, other = np.array([0.0, 0.0, places[0]]), np.array(places[1:])
    half = np.array(halves).reshape(2, 2)
    corners = [
        footprints(pose[None], np.array([[*2 * size, 1.0]]))[0] for pose, size in zip((one, other), half, strict=True)
    ]
    shared_m2 = Polygon(corners[0]).intersection(Polygon(corners[1])).area
    overlap = bool(rectangles_overlap(one[None], half[:1], other[None], half[1:])[0])
    if shared_m2 > 1e-6:
        assert overlap
    elif Polygon(corners[0]).distance(Polygon(corners[1])) > 1e-6:
        assert not overlap


@settings(max_examples=50)
@given(st.floats(0, 12), st.floats(0, 12), st.floats(0, 9), st.floats(0.5, 3))
def test_distance_is_the_integral_of_speed(before: float, after: float, change: float, ramp: float) -> None:
    profile = SpeedProfile(before, after, change, ramp)
    time = np.linspace(0, 10, 20_001)
    speed = profile.speed_mps(time)
    summed = (np.diff(time) * (speed[1:] + speed[:-1]) / 2).sum()
    assert profile.travelled_m(np.array([10.0]))[0] == pytest.approx(summed, abs=1e-4)


def test_a_parallel_curve_keeps_its_distance_and_measures_itself() -> None:
    arc = np.arange(-20, 80, 0.5)
    circle = integrate_curvature(arc, np.full(len(arc), 1 / 40), np.array([5.0, 7.0, 0.3]))
    inner, begin = parallel(circle, 10.0, 0.0)
    np.testing.assert_allclose(inner.pose(np.array([begin]))[0], circle.pose(np.zeros(1), 10.0)[0], atol=1e-6)
    assert np.ptp(inner.arc_m) == pytest.approx(np.ptp(circle.arc_m) * 30 / 40, rel=0.01)


def test_a_drive_starts_where_it_is_told_and_never_reverses() -> None:
    arc = np.arange(-20, 200, 0.5)
    line = integrate_curvature(arc, np.zeros(len(arc)), np.array([1.0, 2.0, np.pi / 2]))
    drive = plan_drive(np.random.default_rng(0), line, 6.0, 10.0, 9.0)
    np.testing.assert_allclose(drive.poses(np.zeros(1))[0], [1.0, 8.0, np.pi / 2], atol=1e-6)
    assert (np.diff(drive.arc_m) >= 0).all()
    assert drive.speed_mps.max() <= 9.0


def test_the_rig_looks_where_the_real_one_does() -> None:
    rig = calibrate(np.random.default_rng(0), 1600, 900)
    for number, mount in enumerate(MOUNTS.values()):
        forward = rig.ego_from_camera[number, :3, 2]
        off = np.degrees(np.arctan2(forward[1], forward[0])) - mount.direction_deg
        assert abs((off + 180) % 360 - 180) < 1.0
        assert rig.ego_from_camera[number, :3, 1] @ [0, 0, -1] > 0.999
    np.testing.assert_allclose(rig.ego_from_lidar[:3, 0], [0, -1, 0], atol=0.02)
    view_deg = np.degrees(2 * np.arctan(800 / rig.intrinsics[:, 0, 0]))
    np.testing.assert_allclose(view_deg, [64.7, 64.8, 64.5, 89.3, 64.8, 64.8], atol=0.5)


def test_clocks_of_scenes_never_overlap() -> None:
    early_us = np.array([mount.early_us for mount in MOUNTS.values()])
    clocks = [set_clock(np.random.default_rng(number), number, 40, early_us) for number in (1, 2)]
    assert clocks[0].lidar_us.max() < clocks[1].camera_us.min()
    assert (np.diff(clocks[0].lidar_us) > 400_000).all()
