"""A small ray tracer in numpy: one shape on a floor, under a sky, lit by the sun.

It stands in for a real renderer in `make demo`. It knows nothing of millpond: it writes into the
arrays that it is given, and does not care whose memory that is.

The world is measured in metres. z points up, the floor is z = 0, and the shape stands on it at
the origin, one metre high. All rays of a picture are traced together: points and directions are
(3, ray_count) float32, and what is the same for every ray is (3, 1).
"""

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
RenderArgs = Mapping[str, float | str]

SKY: Final = 0
FLOOR: Final = 1
OBJECT: Final = 2

DEFAULT_ARGS: Final[RenderArgs] = {
    "shape": "sphere",
    "yaw_deg": 30.0,
    "hue": 0.03,
    "shininess": 60.0,
    "reflectivity": 0.15,
    "floor": "checker",
    "camera_azimuth_deg": 0.0,
    "camera_elevation_deg": 22.0,
    "camera_distance_m": 3.2,
    "light_azimuth_deg": 60.0,
    "light_elevation_deg": 45.0,
}

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "yaw_deg": (0.0, 90.0),
    "hue": (0.0, 1.0),
    "shininess": (8.0, 120.0),
    "reflectivity": (0.0, 0.25),
    "camera_azimuth_deg": (0.0, 360.0),
    "camera_elevation_deg": (5.0, 80.0),
    "camera_distance_m": (2.6, 6.0),
    "light_azimuth_deg": (0.0, 360.0),
    "light_elevation_deg": (30.0, 65.0),
}

HEIGHT_M: Final = 1.0
RADIUS_M: Final = 0.5  # Of sphere, cylinder and cone; half the side of the cube.
TARGET: Final = np.array([[0.0], [0.0], [HEIGHT_M / 2]], dtype=np.float32)  # The camera looks here.
UP: Final = np.array([[0.0], [0.0], [1.0]], dtype=np.float32)
FIELD_OF_VIEW_DEG: Final = 40.0
FLOOR_END_M: Final = 25.0  # Here the floor has faded into the sky, so its edge is not seen.
TILE_M: Final = 0.8
STEP_OFF_M: Final = 1e-3  # New rays start this far off a surface, so as not to hit it again.
EDGE_CONTRAST: Final = 0.04  # Pixels that differ more than this from a neighbour get more rays.

FLOOR_TINT: Final = np.array([[1.0], [0.93], [0.82]], dtype=np.float32)
HORIZON: Final = np.array([[0.78], [0.84], [0.9]], dtype=np.float32)
ZENITH: Final = np.array([[0.12], [0.3], [0.68]], dtype=np.float32)
AMBIENT: Final = 0.24
DIFFUSE: Final = 0.85
SPECULAR: Final = 0.45


@dataclass(frozen=True, slots=True)
class Floor:
    """What the floor is made of: two greys, and the share of light that it mirrors."""

    light: float
    dark: float
    reflectivity: float


FLOORS: Final[Mapping[str, Floor]] = {
    "checker": Floor(light=0.72, dark=0.2, reflectivity=0.1),
    "plain": Floor(light=0.5, dark=0.5, reflectivity=0.0),
}


def render(
    args: RenderArgs, size: int = 128, out: Mapping[str, npt.NDArray[Any]] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Render one picture, into the given arrays if there are any.

    Args:
        args: What to render; what is left out comes from `DEFAULT_ARGS`.
        size: Height and width, in pixels. Not looked at when `out` is given.
        out: Arrays to write to, all three of them, shaped like those returned.

    Returns:
        rgb: (3, height, width), float32, 0 to 1.
        segmentation: (1, height, width), int32: `SKY`, `FLOOR` or `OBJECT`.
        depth: (1, height, width), float32, metres along the ray; 0.0 where there is only sky.

    Raises:
        ValueError: An argument is unknown, or an array of `out` has a wrong shape or dtype.
            Nothing has been written.
    """
    scene = Scene.from_args(args)
    arrays = _checked(out) if out is not None else _allocate(size)
    size = arrays["rgb"].shape[1]
    centre = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2.0 / size) - 1.0
    right, up = np.tile(centre, size), np.repeat(-centre, size)

    colour, hits = _shade(scene, scene.eye, scene.directions(right, up))
    _smooth_edges(scene, colour, right, up)

    np.sqrt(colour.reshape(3, size, size), out=arrays["rgb"])  # Gamma 2: light to display.
    arrays["segmentation"][...] = hits.surface.reshape(1, size, size)
    arrays["depth"][...] = np.where(hits.surface == SKY, 0.0, hits.distance).reshape(1, size, size)
    return arrays


def random_args(
    rng: np.random.Generator, ranges: Mapping[str, tuple[float, float]] = RANGES
) -> dict[str, float | str]:
    """Draw a shape, a floor and a number from each range; the values are plain JSON."""
    drawn = {name: round(rng.uniform(*limits), 3) for name, limits in ranges.items()}
    return {"shape": str(rng.choice(list(SHAPES))), "floor": str(rng.choice(list(FLOORS))), **drawn}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is rendered, as numbers: the shape, the floor, the light and the camera."""

    shape: str
    yaw_rad: float
    colour: Floats  # (3, 1), linear light, 0 to 1.
    shininess: float
    reflectivity: float
    floor: Floor
    light: Floats  # (3, 1), of length 1, towards the sun.
    eye: Floats  # (3, 1), metres.

    @classmethod
    def from_args(cls, args: RenderArgs) -> "Scene":
        """Read a scene from render_args; a ValueError says what is wrong."""
        if unknown := set(args) - set(DEFAULT_ARGS):
            raise ValueError(f"unknown {sorted(unknown)}; known: {sorted(DEFAULT_ARGS)}")
        args = {**DEFAULT_ARGS, **args}
        number = {name: float(args[name]) for name in RANGES}
        for name, known in (("shape", SHAPES), ("floor", FLOORS)):
            if args[name] not in known:
                raise ValueError(f"{name}: {args[name]!r} is not one of {list(known)}")
        if not 0.0 <= number["camera_elevation_deg"] <= 89.0 or number["camera_distance_m"] < 1.0:
            raise ValueError("the camera is under the floor, straight above or inside the shape")
        rgb = colorsys.hsv_to_rgb(number["hue"] % 1.0, 0.78, 0.85)
        towards_eye = _towards(number["camera_azimuth_deg"], number["camera_elevation_deg"])
        return cls(
            shape=str(args["shape"]),
            yaw_rad=math.radians(number["yaw_deg"]),
            colour=_column(*(part**2 for part in rgb)),
            shininess=number["shininess"],
            reflectivity=number["reflectivity"],
            floor=FLOORS[str(args["floor"])],
            light=_towards(number["light_azimuth_deg"], number["light_elevation_deg"]),
            eye=TARGET + np.float32(number["camera_distance_m"]) * towards_eye,
        )

    def directions(self, right: Floats, up: Floats) -> Floats:
        """Turn places in the picture into rays from the eye.

        Args:
            right: (ray_count,), float32, -1 at the left edge to 1 at the right one.
            up: (ray_count,), float32, -1 at the lower edge to 1 at the upper one.

        Returns:
            (3, ray_count), float32, of length 1.
        """
        forward = _unit(TARGET - self.eye)
        to_right = _unit(np.cross(forward, UP, axis=0))
        to_up = np.cross(to_right, forward, axis=0)
        zoom = np.float32(math.tan(math.radians(FIELD_OF_VIEW_DEG / 2)))
        return _unit(forward + to_right * (zoom * right) + to_up * (zoom * up))


@dataclass(frozen=True, slots=True)
class Hits:
    """Where rays end: distance (ray_count,), normal (3, ray_count), surface (ray_count,) int32.

    The distance is in metres, and infinite for the sky.
    """

    distance: Floats
    normal: Floats
    surface: npt.NDArray[np.int32]


def _trace(scene: Scene, origin: Floats, direction: Floats) -> Hits:
    """Find the first surface on each ray."""
    drop = np.minimum(direction[2], -1e-9)
    floor_distance = np.where(direction[2] < 0.0, origin[2] / -drop, np.inf)
    distance, normal = _meet_object(scene, origin, direction)
    is_object = distance < floor_distance
    distance = np.where(is_object, distance, floor_distance)
    surface = np.where(is_object, OBJECT, np.where(distance < FLOOR_END_M, FLOOR, SKY))
    normal = np.where(is_object, normal, UP)
    return Hits(distance, normal, surface.astype(np.int32))


def _meet_object(scene: Scene, origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """Meet the shape, in coordinates that turn with it; infinite distance is a miss."""
    distance, normal = SHAPES[scene.shape](
        _turned(origin, -scene.yaw_rad), _turned(direction, -scene.yaw_rad)
    )
    return distance, _turned(normal, scene.yaw_rad)


def _shade(
    scene: Scene, origin: Floats, direction: Floats, *, may_mirror: bool = True
) -> tuple[Floats, Hits]:
    """Find the colour at the end of each ray, and the end: (3, ray_count), linear, 0 to 1."""
    hits = _trace(scene, origin, direction)
    colour = _sky(direction)
    (struck,) = np.nonzero(hits.surface != SKY)
    direction, normal = direction[:, struck], hits.normal[:, struck]
    distance, is_object = hits.distance[struck], hits.surface[struck] == OBJECT
    origin = origin if origin.shape[1] == 1 else origin[:, struck]
    point = origin + direction * distance + normal * np.float32(STEP_OFF_M)

    mirrored = direction - normal * (2.0 * _dot(direction, normal))
    sun = np.maximum(_dot(scene.light, normal), 0.0) * _sunlit(scene, point, is_object)
    gleam = np.maximum(_dot(scene.light, mirrored), 0.0) ** np.float32(scene.shininess)
    gleam *= (sun > 0.0) & is_object
    paint = np.where(is_object, scene.colour, _floor_paint(scene.floor, point))
    ambient = AMBIENT * (0.6 + 0.4 * normal[2])  # The sky is above: less light from below.
    lit = paint * (ambient + DIFFUSE * sun) + SPECULAR * gleam

    share = np.where(is_object, scene.reflectivity, scene.floor.reflectivity).astype(np.float32)
    if may_mirror:
        (glossy,) = np.nonzero(share)
        seen, _ = _shade(scene, point[:, glossy], mirrored[:, glossy], may_mirror=False)
        lit[:, glossy] += share[glossy] * (seen - lit[:, glossy])
    haze = np.where(is_object, 0.0, (distance / FLOOR_END_M) ** 2)
    colour[:, struck] += (1.0 - haze) * (lit - colour[:, struck])
    return np.clip(colour, 0.0, 1.0, out=colour), hits


def _sunlit(scene: Scene, point: Floats, is_object: Bools) -> Bools:
    """Ask which points see the sun past the shape; it is convex, so only floor can be shaded."""
    sunlit = np.ones(is_object.shape, dtype=np.bool_)
    (on_floor,) = np.nonzero(~is_object)
    light = np.broadcast_to(scene.light, (3, on_floor.size))
    distance, _ = _meet_object(scene, point[:, on_floor], light)
    sunlit[on_floor] = np.isinf(distance)
    return sunlit


def _floor_paint(floor: Floor, point: Floats) -> Floats:
    """Find the colour of the floor, before any light: (3, ray_count), float32."""
    is_dark = (np.floor(point[0] / TILE_M) + np.floor(point[1] / TILE_M)) % 2.0 > 0.5
    return FLOOR_TINT * np.where(is_dark, np.float32(floor.dark), np.float32(floor.light))


def _sky(direction: Floats) -> Floats:
    """Find the colour of a sky that goes from a pale horizon to a blue zenith."""
    rise = np.sqrt(np.clip(direction[2], 0.0, 1.0))
    colour: Floats = HORIZON + (ZENITH - HORIZON) * rise
    return colour


def _smooth_edges(scene: Scene, colour: Floats, right: Floats, up: Floats) -> None:
    """Replace the colour of pixels at an edge by the mean of four rays through them, in place."""
    size = math.isqrt(right.size)
    picture, is_edge = colour.reshape(3, size, size), np.zeros((size, size), dtype=np.bool_)
    across = np.abs(np.diff(picture, axis=2)).max(axis=0) > EDGE_CONTRAST
    down = np.abs(np.diff(picture, axis=1)).max(axis=0) > EDGE_CONTRAST
    is_edge[:, 1:] |= across
    is_edge[:, :-1] |= across
    is_edge[1:] |= down
    is_edge[:-1] |= down
    (edge,) = np.nonzero(is_edge.ravel())
    quarter = np.float32(0.5 / size)  # The picture is 2 wide, so a pixel is 2 / size.
    more_right = right[edge] + quarter * np.array([[-1], [1], [-1], [1]], dtype=np.float32)
    more_up = up[edge] + quarter * np.array([[-1], [-1], [1], [1]], dtype=np.float32)
    fine, _ = _shade(scene, scene.eye, scene.directions(more_right.ravel(), more_up.ravel()))
    colour[:, edge] = fine.reshape(3, 4, edge.size).mean(axis=1)


def _meet_sphere(origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """From the point of the ray nearest the centre, go back by half the chord."""
    from_centre = origin - TARGET
    along = _dot(from_centre, direction)
    nearest = from_centre - along * direction
    half_chord_squared = RADIUS_M**2 - _square(nearest)
    distance = -along - np.sqrt(np.maximum(half_chord_squared, 0.0))
    is_hit = (half_chord_squared > 0.0) & (distance > 0.0)
    normal = (from_centre + direction * distance) / np.float32(RADIUS_M)
    return np.where(is_hit, distance, np.inf), normal


def _meet_cube(origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """Between three pairs of planes: in by the last of them, out by the first."""
    steep = np.where(np.abs(direction) < 1e-7, np.float32(1e-7), direction)
    one, other = (TARGET - RADIUS_M - origin) / steep, (TARGET + RADIUS_M - origin) / steep
    enters = np.minimum(one, other)
    distance, leaves = enters.max(axis=0), np.maximum(one, other).min(axis=0)
    is_hit = (distance < leaves) & (distance > 0.0)
    normal = np.where(enters == distance, -np.sign(direction), np.float32(0.0))
    return np.where(is_hit, distance, np.inf), normal


def _meet_round(origin: Floats, direction: Floats, taper: float) -> tuple[Floats, Floats]:
    """The round side, whose radius shrinks by `taper` per metre of height, or the disc on top."""
    radius = RADIUS_M - taper * origin[2]  # At the height of the ray's origin.
    side = _first_root(
        _square(direction[:2]) - (taper * direction[2]) ** 2,
        _dot(origin[:2], direction[:2]) + taper * radius * direction[2],
        _square(origin[:2]) - radius**2,
        origin[2],
        direction[2],
    )
    top = (HEIGHT_M - origin[2]) / np.minimum(direction[2], -1e-9)
    is_top = (direction[2] < 0.0) & (top > 0.0)
    is_top &= _square(origin[:2] + direction[:2] * top) < (RADIUS_M - taper * HEIGHT_M) ** 2
    distance = np.where(is_top, top, side)
    normal = origin + direction * np.where(np.isinf(distance), 0.0, distance)
    normal[2] = taper * (RADIUS_M - taper * normal[2])
    return distance, np.where(is_top, UP, _unit(normal))


def _first_root(a: Floats, b: Floats, c: Floats, z: Floats, rise: Floats) -> Floats:
    """Solve a t² + 2 b t + c = 0 for the least t > 0 whose height z + rise t is on the shape."""
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    a = np.where(np.abs(a) < 1e-7, np.float32(1e-7), a)
    first = np.full_like(discriminant, np.inf)
    for distance in ((-b - root) / a, (-b + root) / a):
        height = z + rise * distance
        is_on_shape = (discriminant > 0.0) & (distance > 0.0)
        is_on_shape &= (height >= 0.0) & (height <= HEIGHT_M)
        first = np.where(is_on_shape, np.minimum(first, distance), first)
    return first


SHAPES: Final[Mapping[str, Callable[[Floats, Floats], tuple[Floats, Floats]]]] = {
    "cube": _meet_cube,
    "sphere": _meet_sphere,
    "cylinder": partial(_meet_round, taper=0.0),
    "cone": partial(_meet_round, taper=RADIUS_M / HEIGHT_M),
}


def _allocate(size: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "rgb": np.empty((3, size, size), dtype=np.float32),
        "segmentation": np.empty((1, size, size), dtype=np.int32),
        "depth": np.empty((1, size, size), dtype=np.float32),
    }


def _checked(out: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    given = {name: (array.shape, str(array.dtype)) for name, array in out.items()}
    model = _allocate(out["rgb"].shape[-1] if "rgb" in out else 0)
    if given != (wanted := {name: (a.shape, str(a.dtype)) for name, a in model.items()}):
        raise ValueError(f"out: not {given} but {wanted}")
    return dict(out)


def _dot(one: Floats, other: Floats) -> Floats:
    products: Floats = (one * other).sum(axis=0)
    return products


def _square(vectors: Floats) -> Floats:
    return _dot(vectors, vectors)


def _unit(vectors: Floats) -> Floats:
    length: Floats = np.maximum(np.sqrt(_square(vectors)), 1e-9)
    return np.divide(vectors, length, dtype=np.float32)


def _turned(vectors: Floats, angle_rad: float) -> Floats:
    """Turn vectors about the vertical, anticlockwise from above."""
    cosine, sine = np.float32(math.cos(angle_rad)), np.float32(math.sin(angle_rad))
    x, y, z = vectors
    return np.stack([cosine * x - sine * y, sine * x + cosine * y, z])


def _towards(azimuth_deg: float, elevation_deg: float) -> Floats:
    """Make a vector of length 1 from two angles: (3, 1), float32."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    level = math.cos(elevation)
    return _column(level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation))


def _column(*numbers: float) -> Floats:
    return np.array(numbers, dtype=np.float32).reshape(-1, 1)
