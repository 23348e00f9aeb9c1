"""A small classifier that tells the shapes of the ray tracer apart, most of the time.

It stands in for the model under test in `make demo`. It learns at start, in numpy alone, from
small pictures. From far away and from above, where shapes are few pixels or look alike, and past
what it has learnt from, it fails more often: a reason that the demo's records can show.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import raytracer

Floats = npt.NDArray[np.float32]

CLASSES: Final = tuple(raytracer.SHAPES)

TRAINING_COUNT: Final = 450
TRAINING_RANGES: Final = {
    **raytracer.RANGES,
    "camera_elevation_deg": (5.0, 72.0),
    "camera_distance_m": (2.6, 5.6),
}
PATCH: Final = 32  # Pictures are looked at this small: height and width, in pixels.
CELL: Final = 4  # Edges are counted in cells of this many pixels, each way.
ORIENTATIONS: Final = 8
HIDDEN: Final = 32
ROUNDS: Final = 24  # How often each picture is learnt from, on average.
BATCH: Final = 12  # Pictures; so few that the matrix library does not start threads for them.
RATE: Final = np.float32(0.005)
MOMENTUM: Final = np.float32(0.9)
DECAY: Final = np.float32(1e-3)  # Pulls weights to zero, so that pictures are not learnt by heart.


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network with one hidden layer, on counts of edges by place and orientation.

    mean, spread: (feature_count,), float32; features are centred and scaled by them.
    weights: (feature_count + 1, HIDDEN) and (HIDDEN + 1, class_count), float32; the last row of
    each is the bias.
    """

    mean: Floats
    spread: Floats
    weights: tuple[Floats, Floats]

    @classmethod
    def train(cls, seed: int) -> "Classifier":
        """Render pictures and learn from them; the same seed gives the same classifier."""
        rng = np.random.default_rng(seed)
        features, labels = _training_set(rng)
        mean, spread = features.mean(axis=0), features.std(axis=0) + np.float32(1e-3)
        return cls(mean, spread, _fit((features - mean) / spread, labels, rng))

    def predict(self, rgb: Floats) -> Floats:
        """Say how likely each class is.

        Args:
            rgb: (3, height, width), float32, 0 to 1; at least `PATCH` high and wide.

        Returns:
            (class_count,), float32, 0 to 1, in the order of `CLASSES`; the sum is 1.
        """
        features = (_features(rgb) - self.mean) / self.spread
        _, probabilities = _forward(_with_one(features[np.newaxis]), *self.weights)
        likely: Floats = probabilities[0]
        return likely


def _training_set(rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Render what is learnt from, each picture also mirrored.

    Returns:
        Features (count, feature_count), float32, and class indices (count,), int64.
    """
    features, labels = [], []
    for _ in range(TRAINING_COUNT):
        args = raytracer.random_args(rng, TRAINING_RANGES)
        rgb = raytracer.render(args, size=PATCH)["rgb"]
        features += [_features(rgb), _features(rgb[:, :, ::-1])]
        labels += [CLASSES.index(str(args["shape"]))] * 2
    return np.stack(features), np.array(labels, dtype=np.int64)


def _features(rgb: Floats) -> Floats:
    """Count edges by place and orientation: (feature_count,), float32.

    The picture is made small; in each cell, the steepness of its pixels is added up by the
    direction in which they are steepest, on a scale on which faint edges count too.
    """
    small = _shrunk(rgb)
    along_y, along_x = np.gradient(small, axis=(1, 2))
    steepness = along_x**2 + along_y**2
    strongest = steepness.argmax(axis=0)[np.newaxis]  # Of the three colours.
    along_x, along_y, steepness = (
        np.take_along_axis(values, strongest, axis=0)[0] for values in (along_x, along_y, steepness)
    )
    turn = np.arctan2(along_y, along_x) / (2.0 * np.pi) % 1.0
    orientation = np.minimum((turn * ORIENTATIONS).astype(np.int64), ORIENTATIONS - 1)
    cell = np.arange(PATCH) // CELL
    cell_index = cell[:, np.newaxis] * (PATCH // CELL) + cell
    counts = np.bincount(
        (cell_index * ORIENTATIONS + orientation).ravel(),
        weights=np.sqrt(steepness).ravel(),
        minlength=(PATCH // CELL) ** 2 * ORIENTATIONS,
    )
    return np.sqrt(counts).astype(np.float32)


def _shrunk(rgb: Floats) -> Floats:
    """Average the pixels that share a place in the patch: (3, PATCH, PATCH), float32."""
    _, height, width = rgb.shape
    if min(height, width) < PATCH:
        raise ValueError(f"rgb: {height} x {width} pixels, fewer than {PATCH} x {PATCH}")
    rows, columns = (np.arange(PATCH) * length // PATCH for length in (height, width))
    sums = np.add.reduceat(np.add.reduceat(rgb, rows, axis=1), columns, axis=2)
    pixel_count = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return (sums / pixel_count).astype(np.float32)


def _fit(
    features: Floats, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Lower the cross entropy, a few pictures at a time, with momentum."""
    first, second = (
        rng.normal(0.0, row_count**-0.5, (row_count + 1, column_count)).astype(np.float32)
        for row_count, column_count in pairwise((features.shape[1], HIDDEN, len(CLASSES)))
    )
    first_step, second_step = np.zeros_like(first), np.zeros_like(second)
    inputs = _with_one(features)
    target = np.eye(len(CLASSES), dtype=np.float32)[labels]
    for _ in range(ROUNDS * len(labels) // BATCH):
        batch = rng.integers(len(labels), size=BATCH)
        hidden, probabilities = _forward(inputs[batch], first, second)
        error = (probabilities - target[batch]) / np.float32(BATCH)
        hidden_error: Floats = np.where(hidden > 0.0, error @ second[:-1].T, np.float32(0.0))
        first_slope: Floats = inputs[batch].T @ hidden_error + DECAY * first
        second_slope: Floats = _with_one(hidden).T @ error + DECAY * second
        first_step = MOMENTUM * first_step - RATE * first_slope
        second_step = MOMENTUM * second_step - RATE * second_slope
        first += first_step
        second += second_step
    return first, second


def _forward(inputs: Floats, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Run the network on features with a one behind them: (count, feature_count + 1), float32.

    Returns:
        The hidden layer (count, HIDDEN) and probabilities (count, class_count), float32.
    """
    hidden = np.maximum(inputs @ first, 0.0)
    scores = _with_one(hidden) @ second
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def _with_one(rows: Floats) -> Floats:
    return np.hstack([rows, np.ones((len(rows), 1), dtype=np.float32)])
