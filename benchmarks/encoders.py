"""Which encoder for pictures: time and size, on renders of the demo and on noise.

    .venv/bin/python benchmarks/encoders.py

prints two Markdown tables.  What is not installed is left out.  Every lossless file that Pillow can
read is decoded and compared before its time is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from millpond_loggers.images import encoders
from millpond_loggers.images.pixels import to_bytes

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = (256, 512)
ROUNDS = 15
THREAD_ROUNDS = 25
THREAD_FILES = 8
QUALITY = encoders.QUALITY
Encode = Callable[[np.ndarray], bytes]


def library(name: str) -> Any:
    """The module, or None if it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def encoders_without_isal() -> Any:
    """Another copy of the module, which finds no ISA-L."""
    spec = importlib.util.spec_from_file_location("encoders_without_isal", encoders.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    real = sys.modules.get("isal.isal_zlib")
    sys.modules["isal.isal_zlib"] = None  # type: ignore[assignment]
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["isal.isal_zlib"]
        if real is not None:
            sys.modules["isal.isal_zlib"] = real
    return module


def pillow(kind: str, **settings: Any) -> Encode:
    def encode(picture: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind, **settings)
        return file.getvalue()

    return encode


def ours(encode: Any, **settings: Any) -> Encode:
    return lambda picture: encode(picture, **settings)


def opencv(cv2: Any, ending: str, *settings: int) -> Encode:
    cv2.setNumThreads(1)
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}

    def encode(picture: np.ndarray) -> bytes:
        if picture.ndim == 3:
            picture = cv2.cvtColor(picture, codes[picture.shape[2]])
        return cv2.imencode(ending, picture, list(settings))[1].tobytes()

    return encode


def png_encoders() -> dict[str, Encode]:
    found = {
        "millpond, level 1: ISA-L": ours(encoders.encode_png),
        "millpond, level 1, without ISA-L": encoders_without_isal().encode_png,
        "millpond, level 6": ours(encoders.encode_png, compress_level=6),
        "Pillow, level 1": pillow("PNG", compress_level=1),
        "Pillow, level 6": pillow("PNG", compress_level=6),
    }
    if cv2 := library("cv2"):
        found["OpenCV, default"] = opencv(cv2, ".png")
    if fpng := library("fpng"):
        found["fpng"] = fpng.from_ndarray
    if imagecodecs := library("imagecodecs"):
        found["imagecodecs png, level 1"] = lambda p: imagecodecs.png_encode(p, level=1)
        found["imagecodecs spng, level 1"] = lambda p: imagecodecs.spng_encode(p, level=1)
    return found


def jpeg_encoders() -> dict[str, Encode]:
    found = {"millpond: Pillow": ours(encoders.encode_jpeg)}
    if simplejpeg := library("simplejpeg"):
        found["simplejpeg"] = lambda p: simplejpeg.encode_jpeg(p, QUALITY, "RGB", "420")
    if cv2 := library("cv2"):
        found["OpenCV"] = opencv(cv2, ".jpg", cv2.IMWRITE_JPEG_QUALITY, QUALITY)
    return found


def webp_encoders() -> dict[str, Encode]:
    found = {
        "millpond: Pillow, method 0": ours(encoders.encode_webp),
        "Pillow, method 4": pillow("WEBP", quality=QUALITY, method=4),
    }
    if cv2 := library("cv2"):
        found["OpenCV"] = opencv(cv2, ".webp", cv2.IMWRITE_WEBP_QUALITY, QUALITY)
    return found


def depth_encoders() -> dict[str, Encode]:
    found = {
        "TIFF, millpond, level 1: ISA-L": ours(encoders.encode_tiff),
        "TIFF, millpond, level 1, without ISA-L": encoders_without_isal().encode_tiff,
        "TIFF, Pillow, deflate": pillow("TIFF", compression="tiff_deflate"),
        "NPY": encoders.encode_npy,
    }
    if tifffile := library("tifffile"):

        def by_tifffile(picture: np.ndarray) -> bytes:
            file = io.BytesIO()
            level = {"level": 1}
            tifffile.imwrite(file, picture, compression="zlib", compressionargs=level)
            return file.getvalue()

        found["TIFF, tifffile, level 1"] = by_tifffile
    if library("OpenEXR"):
        found["EXR, OpenEXR, ZIP"] = encoders.encode_exr
    return found


def pictures(size: int) -> dict[str, np.ndarray]:
    sys.path.insert(0, str(EXAMPLES))
    raytracer = library("raytracer")
    args = raytracer.random_args(np.random.default_rng(3))
    arrays = raytracer.render(args, size)
    rgb = to_bytes(np.moveaxis(arrays["rgb"], 0, 2))
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return {
        "rgb": rgb,
        "rgba": np.dstack([rgb, np.full((size, size), 255, np.uint8)]),
        "grey": rgb[:, :, 1].copy(),
        "labels": arrays["segmentation"][0].astype(np.uint8),
        "16 bits": (arrays["depth"][0] * 1000).clip(0, 65535).astype(np.uint16),
        "noise": noise,
        "depth": arrays["depth"][0],
        "float rgb": np.ascontiguousarray(np.moveaxis(arrays["rgb"], 0, 2)),
    }


def decoded(content: bytes) -> np.ndarray | None:
    with suppress(OSError), Image.open(io.BytesIO(content)) as image:
        return np.array(image)
    return None


def measure(encode: Encode, picture: np.ndarray, *, is_lossless: bool) -> str:
    """The least time of a core, and the size."""
    try:
        content = encode(picture)
    except (ValueError, TypeError, RuntimeError, AttributeError):  # Each refuses in its own way.
        return "— | —"
    if is_lossless and (found := decoded(content)) is not None:
        assert np.array_equal(found, picture), "what was read is not what was written"
    times_s = []
    for _ in range(ROUNDS):
        start_s = time.process_time()
        encode(picture)
        times_s.append(time.process_time() - start_s)
    return f"{1e3 * min(times_s):.2f} | {len(content):,}"


def pace_ms(encode: Encode, picture: np.ndarray, threads: int) -> float:
    """The least time from one file to the next, as a clock on the wall has it."""
    times_s = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(THREAD_ROUNDS):
            start_s = time.perf_counter()
            list(pool.map(encode, [picture] * THREAD_FILES))
            times_s.append((time.perf_counter() - start_s) / THREAD_FILES)
    return 1e3 * min(times_s)


def print_threads(shown: dict[str, np.ndarray]) -> None:
    rows: list[tuple[str, Encode, str]] = [
        ("rgb, PNG: ISA-L", encoders.encode_png, "rgb"),
        ("rgb, PNG, level 6", ours(encoders.encode_png, compress_level=6), "rgb"),
        ("rgb, JPEG", encoders.encode_jpeg, "rgb"),
        ("rgb, WebP", encoders.encode_webp, "rgb"),
        ("depth, TIFF: ISA-L", encoders.encode_tiff, "depth"),
        ("float rgb, to bytes, then PNG", lambda p: encoders.encode_png(to_bytes(p)), "float rgb"),
    ]
    if library("OpenEXR"):
        rows.append(("float rgb, EXR", encoders.encode_exr, "float rgb"))
    if fpng := library("fpng"):
        rows.append(("rgb, PNG: fpng", fpng.from_ndarray, "rgb"))
    print(f"\n| {SIZES[-1]}² | one thread: ms each | two threads: ms each |\n| --- | ---: | ---: |")
    for label, encode, name in rows:
        paces = [f"{pace_ms(encode, shown[name], threads):.2f}" for threads in (1, 2)]
        print(f"| {label} | {' | '.join(paces)} |", flush=True)


def main() -> None:
    lossless = {
        name: png_encoders() for name in ("rgb", "rgba", "grey", "labels", "16 bits", "noise")
    }
    lossless["depth"] = depth_encoders()
    lossy = {"JPEG": jpeg_encoders(), "WebP": webp_encoders()}
    shown = {size: pictures(size) for size in SIZES}
    print("| picture | encoder | " + " | ".join(
        f"{size}²: ms | bytes" for size in SIZES) + " |")  # fmt: skip
    print("| --- | --- |" + " ---: |" * 2 * len(SIZES))
    for name, found in lossless.items():
        for label, encode in found.items():
            cells = [measure(encode, shown[size][name], is_lossless=True) for size in SIZES]
            print(f"| {name} | {label} | {' | '.join(cells)} |", flush=True)
    for name, found in lossy.items():
        for label, encode in found.items():
            cells = [measure(encode, shown[size]["rgb"], is_lossless=False) for size in SIZES]
            print(f"| rgb, {name} {QUALITY} | {label} | {' | '.join(cells)} |", flush=True)
    for label, encode in (
        ("to bytes, then PNG", lambda p: encoders.encode_png(to_bytes(p))),
        ("EXR, OpenEXR, ZIP", encoders.encode_exr),
        ("NPY", encoders.encode_npy),
    ):
        cells = [measure(encode, shown[size]["float rgb"], is_lossless=False) for size in SIZES]
        print(f"| float rgb | {label} | {' | '.join(cells)} |", flush=True)
    print_threads(shown[SIZES[-1]])


if __name__ == "__main__":
    main()
