"""What the synthetic cameras show: things where their boxes are, and nearer things before farther ones."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility, view_points
from PIL import Image

from scenes.synthetic import WorldOptions, write_world
from scenes.synthetic.bodies import Bodies, Cast, Sighting
from scenes.synthetic.catalogue import KINDS
from scenes.synthetic.facades import facade_of
from scenes.synthetic.light import draw_light
from scenes.synthetic.occupancy import rectangles_overlap
from scenes.synthetic.options import TABLE_VERSION
from scenes.synthetic.paint_order import PaintOrder
from scenes.synthetic.plan import plan_scene
from scenes.synthetic.rig import calibrate
from scenes.synthetic.scenery import Block
from scenes.synthetic.shapes import shape_of
from scenes.synthetic.surfaces import FRONT, REAR, Sculptor, join
from scenes.synthetic.things import Thing
from scenes.synthetic.view import Camera, clip_near, footprints, relative_poses
from scenes.synthetic.vocabulary import token
from schemas.boxes import CLASS_NAMES
from schemas.frames import CAMERAS

SIZE_WH = (224, 126)
ORIGIN = np.zeros(3)
SHOWN = WorldOptions(train_scenes=9, tune_scenes=0, val_scenes=0, frames_per_scene=2)


def _front_camera() -> Camera:
    rig = calibrate(np.random.default_rng(0), *SIZE_WH)
    return Camera(rig.intrinsics[0], np.linalg.inv(rig.ego_from_camera[0]), SIZE_WH)


def _thing(name: str, look: int = 1) -> Thing:
    kind, nowhere = KINDS[name], np.zeros(0)
    category = next(iter(kind.categories))
    size = np.array(kind.size_wlh_m)
    return Thing(name, category, size, "lane", kind.rideable, look, nowhere, nowhere, nowhere)


def _draw(things: list[Thing], blocks: list[Block], poses: NDArray[np.float64]) -> tuple[NDArray[np.uint8], Sighting]:
    """Draw on black, from the front camera at the origin; poses of the things first."""
    shapes = [shape_of(thing) for thing in things] + [facade_of(block) for block in blocks]
    sizes = np.array([thing.size_wlh_m[[1, 0, 2]] for thing in things] + [block.size_lwh_m for block in blocks])
    owners = np.repeat(np.arange(len(shapes)), [len(shape.levels) for shape in shapes])
    cast = Cast(join(shapes), owners, sizes, len(things))
    image = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
    bodies = Bodies(_front_camera(), cast, draw_light(np.random.default_rng(0)))
    return image, bodies.draw(image, poses, ORIGIN, PaintOrder(poses, sizes[:, :2] / 2))


def _box_pixels(camera: Camera, thing: Thing, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """(8, 2) projected corners of a thing's box."""
    size = thing.size_wlh_m[[1, 0, 2]]
    feet = footprints(pose[None], size[None])[0]
    corners = np.concatenate([np.column_stack([feet, np.full(4, height)]) for height in (0, size[2])])
    points = camera.points(corners) @ camera.intrinsics.T
    return points[:, :2] / points[:, 2:]


@settings(max_examples=60)
@given(
    name=st.sampled_from(CLASS_NAMES),
    ahead=st.floats(9, 25),
    left=st.floats(-0.25, 0.25),
    yaw=st.floats(-3.1, 3.1),
    look=st.integers(0, 999),
)
def test_a_thing_is_drawn_within_its_box_and_fills_it(
    name: str, ahead: float, left: float, yaw: float, look: int
) -> None:
    thing, pose = _thing(name, look), np.array([1.7 + ahead, left * ahead, yaw])
    image, sighting = _draw([thing], [], pose[None])
    rows, columns = np.nonzero(image.max(axis=2) > 0)
    drawn = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    corners = _box_pixels(_front_camera(), thing, pose)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).clip(0, [223, 125, 223, 125])
    assert (drawn[:2] >= box[:2] - 2).all()
    assert (drawn[2:] <= box[2:] + 2).all()
    # A one-sided arm or a lone head may leave part of the box empty, but never most of it.
    assert ((drawn[2:] - drawn[:2]) >= 0.6 * (box[2:] - box[:2]) - 1.5).all()
    assert sighting.shown[0] == sighting.whole[0] > 0


def test_front_and_rear_differ_for_every_thing_that_has_them() -> None:
    for name in CLASS_NAMES:
        if name == "traffic_cone":
            continue
        pictures = [_draw([_thing(name)], [], np.array([[10.0, 0.0, yaw]]))[0] for yaw in (0.0, np.pi)]
        changed = np.abs(pictures[0].astype(int) - pictures[1].astype(int)).max(axis=2) > 40
        drawn = pictures[0].max(axis=2) > 0
        assert changed.sum() > 0.05 * drawn.sum(), name


def test_looks_of_a_class_vary() -> None:
    for name in CLASS_NAMES:
        colors = []
        for look in range(12):
            image = _draw([_thing(name, look)], [], np.array([[9.0, 0.5, 0.7]]))[0]
            colors.append(image[image.max(axis=2) > 0].mean(axis=0))
        assert np.std(colors, axis=0).max() > 4, name


def test_a_wall_hides_what_stands_behind_it_and_not_what_stands_before() -> None:
    wall = Block("wall", np.array([15.0, 0.0, np.pi / 2]), np.array([14.0, 0.5, 4.0]), 0)
    poses = np.array([[10.0, 1.0, 0.3], [22.0, 0.0, 0.0], wall.pose])
    _, sighting = _draw([_thing("pedestrian"), _thing("car")], [wall], poses)
    assert sighting.shown.tolist() == [sighting.whole[0], 0]
    assert (sighting.whole > 20).all()


def test_part_of_a_hidden_thing_counts_in_part() -> None:
    wall = Block("wall", np.array([15.0, 4.0, np.pi / 2]), np.array([8.0, 0.5, 4.0]), 0)
    _, sighting = _draw([_thing("bus")], [wall], np.array([[22.0, 0.0, np.pi / 2], wall.pose]))
    assert 0.2 < sighting.shown[0] / sighting.whole[0] < 0.8


@settings(max_examples=60)
@given(st.integers(0, 100_000))
def test_painting_order_agrees_with_rays(seed: int) -> None:
    """Along any ray, what is hit farther away is painted earlier."""
    rng = np.random.default_rng(seed)
    poses = np.column_stack([rng.uniform(-15, 15, (25, 2)), rng.uniform(-np.pi, np.pi, 25)])
    half = rng.uniform(0.3, 3.5, (25, 2))
    kept = np.zeros(25, dtype=np.bool_)
    for number in range(25):
        others = np.nonzero(kept)[0]
        clear = np.hypot(*poses[number, :2]) > 5
        repeat = np.full(len(others), number)
        kept[number] = clear and not rectangles_overlap(poses[repeat], half[repeat], poses[others], half[others]).any()
    poses, half = poses[kept], half[kept]
    order = PaintOrder(poses, half).back_to_front(np.zeros(2), np.arange(len(poses))).tolist()
    rank = {body: position for position, body in enumerate(order)}
    assert sorted(order) == list(range(len(poses)))
    wrong = 0
    for angle in np.linspace(-np.pi, np.pi, 181):
        hits = sorted((distance, body) for body in rank if (distance := _hit(poses[body], half[body], angle)) < np.inf)
        wrong += sum(rank[near[1]] < rank[far[1]] for near, far in pairwise(hits))
    # Three bodies can hide one another in a ring; any order is wrong for one pair of them.
    assert wrong <= 4


def _hit(pose: NDArray[np.float64], half: NDArray[np.float64], angle: float) -> float:
    """Distance from the origin at which a ray enters a rectangle; infinite when it misses."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    turn = np.array([[cos, sin], [-sin, cos]])
    start, step = turn @ -pose[:2], turn @ np.array([np.cos(angle), np.sin(angle)])
    one, other = (-half - start) / step, (half - start) / step
    enter, leave = np.minimum(one, other).max(), np.maximum(one, other).min()
    return float(enter) if 0 < enter < leave else np.inf


def test_clipping_cuts_at_the_near_plane_only() -> None:
    triangle = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, -5.0], [-1.0, 0.0, -5.0]])
    clipped = clip_near(triangle)
    assert len(clipped) == 3
    assert clipped[:, 2].min() == pytest.approx(0.25)
    ahead = triangle + np.array([0, 0, 10])
    np.testing.assert_array_equal(clip_near(ahead), ahead)
    assert len(clip_near(triangle - np.array([0, 0, 10]))) == 0


def test_prism_faces_point_outwards() -> None:
    body = Sculptor(np.array([4.0, 2.0, 1.5])).prism((-0.5, 0.5, -0.5, 0.5), (-0.3, 0.3, -0.4, 0.4), (0, 1), (9, 9, 9))
    surfaces = body.decal(FRONT, (0, 0.5), (0, 0.5), (1, 2, 3)).surfaces()
    center = surfaces.corners_m[:5].reshape(-1, 3).mean(axis=0)
    outwards = surfaces.corners_m.mean(axis=1) - center
    assert ((surfaces.normals * outwards).sum(axis=1) > 0).all()
    assert surfaces.normals[FRONT, 0] > 0 > surfaces.normals[REAR, 0]
    # Whoever looks at the front sees the body's own right, negative y, on the left.
    assert surfaces.corners_m[5, :, 1].max() <= 1e-9


@pytest.fixture(scope="module")
def shown_world(tmp_path_factory: pytest.TempPathFactory) -> NuScenes:
    """A few frames at the demo's picture size."""
    root = tmp_path_factory.mktemp("pictures") / "world"
    write_world(SHOWN, root, 1, lambda _: None)
    return NuScenes(TABLE_VERSION, str(root), verbose=False)


def test_boxes_of_the_tables_fall_on_their_pictures(shown_world: NuScenes) -> None:
    """Cones and diggers are warm in colour; they are found where the devkit projects their boxes."""
    there, mirrored = [], []
    for channel in CAMERAS:
        for sample in shown_world.sample:
            path, boxes, intrinsics = shown_world.get_sample_data(sample["data"][channel], BoxVisibility.ALL)
            picture = np.asarray(Image.open(Path(path))).astype(int)
            warm = picture[..., 0] - picture[..., 2] > 60
            for box in boxes:
                row = shown_world.get("sample_annotation", box.token)
                corners = view_points(box.corners(), intrinsics, normalize=True)[:2]
                left, top, right, bottom = np.round([*corners.min(axis=1), *corners.max(axis=1)]).astype(int)
                is_warm = box.name in ("movable_object.trafficcone", "vehicle.construction")
                if is_warm and row["visibility_token"] == "4" and min(right - left, bottom - top) >= 5:
                    there.append(warm[top : bottom + 1, left : right + 1].mean())
                    mirrored.append(warm[:, ::-1][top : bottom + 1, left : right + 1].mean())
    assert len(there) > 15
    # A cone has a white band and a black foot, a digger has tracks: no box is warm all over.
    assert min(there) > 0.1
    assert np.median(there) > 3 * np.median(mirrored)


def test_the_tables_project_boxes_as_the_renderer_does(shown_world: NuScenes) -> None:
    """Calibration, ego poses and boxes survive the way through the tables: the same pixels, to a hundredth.

    Only boxes wholly in the picture: beside the camera the tables' tenth of a millimetre is a pixel.
    """
    compared = 0
    for scene in shown_world.scene:
        plan = plan_scene(SHOWN, scene["name"])
        things = {token(plan.seed, plan.name, "instance", number): thing for number, thing in enumerate(plan.things)}
        sample = shown_world.get("sample", scene["first_sample_token"])
        for number, channel in enumerate(CAMERAS):
            _, boxes, intrinsics = shown_world.get_sample_data(sample["data"][channel], BoxVisibility.ALL)
            camera_from_ego = np.linalg.inv(plan.rig.ego_from_camera[number])
            camera = Camera(plan.rig.intrinsics[number], camera_from_ego, SIZE_WH)
            for box in boxes:
                thing = things[shown_world.get("sample_annotation", box.token)["instance_token"]]
                pose = relative_poses(thing.lidar_poses[:1], plan.camera_ego_poses[0, number])[0]
                ours = _box_pixels(camera, thing, pose)
                theirs = view_points(box.corners(), intrinsics, normalize=True)[:2].T
                gap = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
                assert gap.min(axis=1).max() < 0.01
                compared += 1
    assert compared > 100
