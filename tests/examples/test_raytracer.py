import json
import math

import numpy as np
import pytest
import raytracer
from raytracer import (
    DEFAULT_ARGS,
    FLOOR,
    FLOORS,
    OBJECT,
    RADIUS_M,
    SHAPES,
    SKY,
    random_args,
    render,
)

SIZE = 65  # Odd, so that one pixel lies in the middle.
LEVEL = {"camera_elevation_deg": 0.0, "camera_distance_m": 3.0}


def picture_of(x_m, y_m, args, size):
    """Find the pixel (row, column) that shows a point of the floor."""
    scene = raytracer.Scene.from_args(args)
    seen = np.array([[x_m], [y_m], [0.0]], dtype=np.float32) - scene.eye
    seen /= np.linalg.norm(seen)
    centre = (np.arange(size, dtype=np.float32) + 0.5) * 2.0 / size - 1.0
    rays = scene.directions(np.tile(centre, size), np.repeat(-centre, size))
    return divmod(int((rays * seen).sum(axis=0).argmax()), size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("floor", FLOORS)
def test_arrays_have_the_promised_shapes_dtypes_and_ranges(shape, floor):
    arrays = render({"shape": shape, "floor": floor, "camera_elevation_deg": 8.0}, size=SIZE)

    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "rgb": ((3, SIZE, SIZE), "float32"),
        "segmentation": ((1, SIZE, SIZE), "int32"),
        "depth": ((1, SIZE, SIZE), "float32"),
    }
    assert np.isfinite(arrays["rgb"]).all()
    assert arrays["rgb"].min() >= 0.0
    assert arrays["rgb"].max() <= 1.0
    assert set(np.unique(arrays["segmentation"])) == {SKY, FLOOR, OBJECT}


@pytest.mark.parametrize("seed", range(12))
def test_depth_is_zero_in_the_sky_and_only_there(seed):
    arrays = render(random_args(np.random.default_rng(seed)), size=SIZE)

    assert np.array_equal(arrays["depth"] > 0.0, arrays["segmentation"] != SKY)
    assert np.isfinite(arrays["depth"]).all()


@pytest.mark.parametrize("elevation_deg", [0.0, 30.0, 75.0])
@pytest.mark.parametrize("distance_m", [2.0, 6.0])
def test_depth_in_the_middle_of_the_sphere_is_the_distance_less_the_radius(
    elevation_deg, distance_m
):
    args = {"camera_elevation_deg": elevation_deg, "camera_distance_m": distance_m}

    depth = render(args, size=SIZE)["depth"]

    assert depth[0, SIZE // 2, SIZE // 2] == pytest.approx(distance_m - RADIUS_M, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "yaw_deg", "depth_m"),
    [
        ("cube", 0.0, 3.0 - RADIUS_M),  # A face.
        ("cube", 45.0, 3.0 - RADIUS_M * math.sqrt(2.0)),  # An edge.
        ("cylinder", 20.0, 3.0 - RADIUS_M),
        ("cone", 20.0, 3.0 - RADIUS_M / 2.0),  # Halfway up it is half as wide.
    ],
)
def test_depth_at_eye_level_is_what_the_shape_says(shape, yaw_deg, depth_m):
    depth = render({**LEVEL, "shape": shape, "yaw_deg": yaw_deg}, size=SIZE)["depth"]

    assert depth[0, SIZE // 2, SIZE // 2] == pytest.approx(depth_m, abs=1e-3)


@pytest.mark.parametrize("shape", ["cube", "cylinder"])
def test_a_flat_top_is_seen_from_above(shape):
    args = {"shape": shape, "camera_elevation_deg": 60.0, "camera_distance_m": 3.0}

    depth = render(args, size=SIZE)["depth"]

    to_top_m = 3.0 - (raytracer.HEIGHT_M / 2.0) / math.sin(math.radians(60.0))
    assert depth[0, SIZE // 2, SIZE // 2] == pytest.approx(to_top_m, abs=1e-3)


def test_depth_of_the_floor_is_the_distance_to_the_plane():
    args = {"camera_elevation_deg": 30.0, "camera_distance_m": 4.0}
    eye = raytracer.Scene.from_args(args).eye.ravel()

    depth = render(args, size=SIZE)["depth"][0]

    row, column = picture_of(0.5, -1.2, args, SIZE)
    expected_m = math.dist(eye, (0.5, -1.2, 0.0))
    assert depth[row, column] == pytest.approx(expected_m, rel=0.02)  # A pixel is 2 % deep here.


@pytest.mark.parametrize("seed", range(40))
def test_the_whole_object_is_in_the_frame(seed):
    segmentation = render(random_args(np.random.default_rng(seed)), size=48)["segmentation"][0]

    is_object = segmentation == OBJECT
    assert is_object.sum() > 40
    assert not is_object[[0, -1]].any()
    assert not is_object[:, [0, -1]].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_floor_behind_the_object_as_seen_from_the_light_is_in_shadow(shape):
    args = {
        "shape": shape,
        "floor": "plain",
        "camera_elevation_deg": 50.0,
        "camera_distance_m": 5.0,
        "light_azimuth_deg": 90.0,  # From +y, so the shadow lies towards -y.
        "light_elevation_deg": 40.0,
    }

    rgb = render(args, size=SIZE)["rgb"]

    shaded, lit = (rgb[(slice(None), *picture_of(0.0, y_m, args, SIZE))] for y_m in (-0.7, 0.9))
    assert shaded.sum() < 0.8 * lit.sum()


def test_the_shadow_follows_the_light():
    args = {"floor": "plain", "camera_elevation_deg": 50.0, "camera_distance_m": 5.0}
    row, column = picture_of(0.0, -0.7, args, SIZE)

    away, towards = (
        render({**args, "light_azimuth_deg": azimuth_deg}, size=SIZE)["rgb"][1, row, column]
        for azimuth_deg in (90.0, 270.0)
    )

    assert away < 0.8 * towards


@pytest.mark.parametrize("shape", SHAPES)
def test_the_side_towards_the_light_is_brighter(shape):
    args = {**LEVEL, "shape": shape, "yaw_deg": 45.0, "shininess": 120.0, "reflectivity": 0.0}

    # The camera is at +x and looks towards -x, so +y is on its right.
    rgb = render({**args, "light_azimuth_deg": 90.0}, size=SIZE)["rgb"]

    row, offset = SIZE // 2 + 4, SIZE // 10
    left, right = (rgb[:, row, SIZE // 2 + shift].sum() for shift in (-offset, offset))
    assert right > 1.2 * left


def test_a_mirroring_cube_shows_the_checkers_and_a_dull_one_does_not():
    args = {**LEVEL, "shape": "cube", "yaw_deg": 0.0, "camera_elevation_deg": 15.0}
    lower_face = np.s_[:, SIZE // 2 : SIZE // 2 + 10, SIZE // 2 - 12 : SIZE // 2 + 12]

    dull, mirroring = (
        render({**args, "reflectivity": share}, size=SIZE)["rgb"][lower_face]
        for share in (0.0, 0.4)
    )

    assert np.ptp(dull[1]) < 0.01
    assert np.ptp(mirroring[1]) > 0.05


def test_rendering_into_given_arrays_gives_the_same_and_returns_those_arrays():
    args = random_args(np.random.default_rng(5))
    expected = render(args, size=SIZE)
    memory = {name: np.zeros((2, *array.shape), array.dtype) for name, array in expected.items()}
    out = {name: array[1] for name, array in memory.items()}  # Views, as a slot's arrays are.

    returned = render(args, out=out)

    for name, array in expected.items():
        assert returned[name] is out[name]
        assert np.array_equal(memory[name][1], array), name
        assert not memory[name][0].any(), "wrote beside the array"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rgb": np.zeros((3, 8, 9), np.float32)},
        {"rgb": np.zeros((3, 8, 8), np.float64)},
        {"depth": np.zeros((8, 8), np.float32)},
        {"colour": np.zeros((3, 8, 8), np.float32)},
    ],
)
def test_wrong_arrays_are_refused_before_anything_is_written(wrong):
    out = {name: np.zeros_like(array) for name, array in render({}, size=8).items()} | wrong

    with pytest.raises(ValueError, match="out"):
        render({}, out=out)

    assert not any(array.any() for array in out.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", "cone"),
        ("hue", 0.6),
        ("shininess", 9.0),
        ("reflectivity", 0.4),
        ("floor", "plain"),
        ("camera_azimuth_deg", 25.0),
        ("camera_elevation_deg", 40.0),
        ("camera_distance_m", 4.0),
        ("light_azimuth_deg", 200.0),
        ("light_elevation_deg", 62.0),
    ],
)
def test_every_argument_changes_the_picture(name, value):
    assert not np.allclose(render({name: value}, size=48)["rgb"], render({}, size=48)["rgb"])


def test_yaw_turns_the_cube_and_a_quarter_turn_changes_nothing():
    first, turned, quarter = (
        render({"shape": "cube", "yaw_deg": yaw_deg}, size=48)["depth"]
        for yaw_deg in (10.0, 40.0, 100.0)
    )

    assert not np.allclose(first, turned, atol=0.01)
    assert np.mean(np.abs(first - quarter) > 0.01) < 0.01  # But for rounding at its outline.


@pytest.mark.parametrize(
    "args",
    [
        {"shape": "teapot"},
        {"floor": "lava"},
        {"zoom": 2.0},
        {"camera_elevation_deg": 90.0},
        {"camera_elevation_deg": -1.0},
        {"camera_distance_m": 0.4},
    ],
)
def test_what_cannot_be_rendered_is_refused(args):
    with pytest.raises(ValueError, match=r"teapot|lava|zoom|camera"):
        render(args, size=8)


def test_random_arguments_are_plain_json_complete_and_the_same_for_a_seed():
    args = random_args(np.random.default_rng(3))

    assert json.loads(json.dumps(args)) == args
    assert set(args) == set(DEFAULT_ARGS)
    assert args == random_args(np.random.default_rng(3))
    assert args != random_args(np.random.default_rng(4))
