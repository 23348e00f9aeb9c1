"""The renderer of `make demo`: it renders shapes, has them classified, and publishes the results.

It is what a user writes: it connects to the daemon, claims a slot for every result, and renders
into the slot's own memory. What becomes of the results after that, it does not know.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from classifier import CLASSES, PATCH, Classifier
from raytracer import random_args, render

import millpond

PICTURES: Final = ("rgb", "segmentation", "depth")
CLAIM_TIMEOUT_S: Final = 30.0
KEPT_COUNT: Final = 3
LEAST_PROBABILITY: Final = np.float32(1e-7)  # Keeps the loss finite.


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, render, and print one line at the end."""
    options = _options(arguments)
    classifier = Classifier.train(options.seed)
    started_s = time.perf_counter()
    correct_count = _render_all(classifier, options)
    duration_s = time.perf_counter() - started_s
    percent = 100.0 * correct_count / max(options.count, 1)
    print(f"rendered {options.count} results in {duration_s:.1f} s, {percent:.0f} % correct")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render shapes, classify them, publish results.")
    parser.add_argument("socket", help="the daemon's socket")
    parser.add_argument("--count", type=int, default=200, help="how many results")
    parser.add_argument("--size", type=int, default=128, help="height and width, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same results")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="save the first pictures here")
    options = parser.parse_args(arguments)
    if options.size < PATCH:
        parser.error(f"--size: the classifier needs at least {PATCH}")
    if options.count < 0:
        parser.error("--count: less than nothing")
    return options


def _render_all(classifier: Classifier, options: argparse.Namespace) -> int:
    """Render and publish every result; returns how many were classified correctly."""
    rng = np.random.default_rng([options.seed, 1])  # Other pictures than those learnt from.
    correct_count = 0
    with millpond.connect(options.socket, channels=_channels(options.size)) as pond:
        for index in range(options.count):
            result_id, args = f"{index:06d}", random_args(rng)
            with pond.claim(timeout_s=CLAIM_TIMEOUT_S) as slot:
                render(args, out={name: slot[name] for name in PICTURES})
                probabilities = classifier.predict(slot["rgb"])
                truth = CLASSES.index(str(args["shape"]))
                is_correct = bool(probabilities.argmax() == truth)
                slot["prediction"] = probabilities.argmax()
                slot["is_correct"] = is_correct
                slot["loss"] = -np.log(max(probabilities[truth], LEAST_PROBABILITY))
                if options.keep and index < KEPT_COUNT:
                    _save(slot["rgb"], options.keep / f"{result_id}.npy")
                slot.publish(
                    id=result_id,
                    render_args=args,
                    fields={"environment": f"floor_{args['floor']}", "model": args["shape"]},
                )
            correct_count += is_correct
    return correct_count


def _channels(size: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        "rgb": ((3, size, size), "float32"),
        "segmentation": ((1, size, size), "int32"),
        "depth": ((1, size, size), "float32"),
        "prediction": ((), "int64"),
        "is_correct": ((), "bool"),
        "loss": ((), "float32"),
    }


def _save(rgb: npt.NDArray[np.float32], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rgb)


if __name__ == "__main__":
    main()
