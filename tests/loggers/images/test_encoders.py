"""The encoders: what other programs read from the bytes is what was given."""

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from millpond.errors import ConfigError
from millpond_loggers.images import encoders
from millpond_loggers.images.encoders import (
    encode_exr,
    encode_jpeg,
    encode_npy,
    encode_palette_png,
    encode_png,
    encode_tiff,
    encode_webp,
)
from millpond_loggers.images.pixels import label_colours

RANDOM = np.random.default_rng(0)
# Flat, smooth and noisy pictures are three paths through a compressor.
CONTENTS = {
    "zeros": np.zeros,
    "slope": lambda shape: np.add.outer(np.arange(shape[0]), np.arange(np.prod(shape[1:]))),
    "noise": lambda shape: np.random.default_rng(0).integers(0, 1 << 16, shape),
}


def read(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and found.tobytes() == np.ascontiguousarray(expected).tobytes()
    )


@st.composite
def pictures(draw: Any) -> np.ndarray:
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    planes = draw(st.sampled_from([None, 3, 4]))
    shape = (height, width) if planes is None else (height, width, planes)
    dtype = np.uint8 if planes or draw(st.booleans()) else np.uint16
    if draw(st.booleans()):
        return draw(hnp.arrays(dtype, shape))
    name = draw(st.sampled_from(sorted(CONTENTS)))
    return CONTENTS[name](shape).reshape(shape).astype(dtype)


@settings(max_examples=300, deadline=None)
@given(picture=pictures(), level=st.integers(0, 9), has_isal=st.booleans(), order=st.booleans())
def test_every_png_is_read_as_what_it_was(
    *, picture: np.ndarray, level: int, has_isal: bool, order: bool
) -> None:
    compress = encoders._isal_compress
    try:
        encoders._isal_compress = compress if has_isal else None
        given_array = np.asfortranarray(picture) if order else picture
        content = encode_png(given_array, compress_level=level)
    finally:
        encoders._isal_compress = compress
    assert same(read(content), picture)


@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (1024, 1024), (333, 777)])
@pytest.mark.parametrize("content", sorted(CONTENTS))
def test_large_and_odd_sizes_are_read_as_what_they_were(
    size: tuple[int, int], content: str
) -> None:
    picture = CONTENTS[content]((*size, 3)).reshape((*size, 3)).astype(np.uint8)
    assert same(read(encode_png(picture)), picture)
    assert same(read(encode_tiff(picture)), picture)


def test_the_same_picture_gives_the_same_bytes() -> None:
    picture = CONTENTS["noise"]((50, 60, 3)).astype(np.uint8)
    for encode in (encode_png, encode_tiff, encode_jpeg, encode_webp, encode_npy):
        assert encode(picture) == encode(picture.copy())
    assert encode_exr(picture.astype(np.float32)) == encode_exr(picture.astype(np.float32))


def test_a_png_of_16_bit_colours_keeps_them() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    picture = CONTENTS["noise"]((20, 30, 3)).astype(np.uint16)
    assert same(imagecodecs.png_decode(encode_png(picture)), picture)


def test_without_the_fast_library_the_pixels_are_the_same(monkeypatch: Any) -> None:
    picture = CONTENTS["slope"]((64, 64, 3)).reshape(64, 64, 3).astype(np.uint8)
    fast = encode_png(picture)
    monkeypatch.setattr(encoders, "_isal_compress", None)
    plain = encode_png(picture)
    assert same(read(fast), read(plain))
    assert fast != plain


def test_the_level_of_compression_counts() -> None:
    picture = CONTENTS["slope"]((64, 64, 3)).reshape(64, 64, 3).astype(np.uint8)
    for encode in (encode_png, encode_tiff):
        sizes = [len(encode(picture, compress_level=level)) for level in (0, 1, 9)]
        assert sizes[0] > picture.nbytes > sizes[1]
        assert sizes[0] > picture.nbytes > sizes[2]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 3), "int8"), ((3, 3), "float32"), ((3, 3), "bool"), ((3, 3), "uint32"),
        ((3,), "uint8"), ((3, 3, 2), "uint8"), ((3, 3, 1), "uint8"), ((0, 3), "uint8"),
        ((3, 3, 3, 3), "uint8"),
    ],
)  # fmt: skip
def test_what_is_no_png_says_so(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"{dtype} of shape \(.*\) has no PNG"):
        encode_png(np.zeros(shape, dtype))


def test_a_palette_shows_colours_and_reads_as_labels() -> None:
    labels = RANDOM.integers(0, 7, (9, 5), np.uint8)
    labels[0, 0] = 6
    with Image.open(io.BytesIO(encode_palette_png(labels, label_colours()))) as image:
        assert image.mode == "P"
        assert same(np.array(image), labels)
        assert same(np.array(image.convert("RGB")), label_colours()[labels])
    assert len(encode_palette_png(labels * 0, label_colours())) < 100


@pytest.mark.parametrize(("shape", "dtype"), [((3, 3), "int32"), ((3, 3, 3), "uint8")])
def test_what_is_no_label_says_so(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="are no labels: give uint8"):
        encode_palette_png(np.zeros(shape, dtype), label_colours())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("level", [0, 1, 6])
def test_a_tiff_is_read_by_pillow_as_what_it_was(dtype: str, level: int) -> None:
    plane = CONTENTS["noise"]((7, 9)).astype(dtype)
    if dtype.startswith("float"):
        plane[0, :3] = [np.nan, np.inf, -np.inf]
    found = read(encode_tiff(plane, compress_level=level))
    assert np.array_equal(found, plane, equal_nan=dtype.startswith("float"))


@pytest.mark.parametrize("planes", [None, 3, 4])
@pytest.mark.parametrize(
    "dtype",
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
     "float16", "float32", "float64"],
)  # fmt: skip
def test_a_tiff_of_any_numbers_is_read_by_tifffile_as_what_it_was(
    dtype: str, planes: int | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    shape = (7, 9) if planes is None else (7, 9, planes)
    values = (CONTENTS["noise"](shape) % 2048).astype(dtype)
    content = encode_tiff(values[::-1])
    assert same(tifffile.imread(io.BytesIO(content)), values[::-1])
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert len(file.pages) == 1
        assert file.pages[0].axes == ("YX" if planes is None else "YXS")


def test_a_tiff_is_read_by_opencv_as_what_it_was() -> None:
    cv2 = pytest.importorskip("cv2")
    plane = RANDOM.normal(size=(31, 17)).astype(np.float32)
    found = cv2.imdecode(np.frombuffer(encode_tiff(plane), np.uint8), cv2.IMREAD_UNCHANGED)
    assert same(found, plane)


@pytest.mark.parametrize(("shape", "dtype"), [((3, 3), "bool"), ((3, 3, 2), "u1"), ((3,), "u1")])
def test_what_is_no_tiff_says_so(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="has no TIFF"):
        encode_tiff(np.zeros(shape, dtype))


@pytest.mark.parametrize("encode", [encode_jpeg, encode_webp])
@pytest.mark.parametrize("planes", [None, 3])
def test_lossy_formats_are_nearly_what_they_were(encode: Any, planes: int | None) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    picture = ramp if planes is None else np.dstack([ramp] * planes)
    found = read(encode(picture, quality=95))
    if found.ndim > picture.ndim:  # WebP has colours only.
        found = found[:, :, 0]
    assert np.abs(found.astype(int) - picture).max() < 8
    assert len(encode(picture, quality=5)) < len(encode(picture, quality=95))


def test_webp_keeps_alpha() -> None:
    picture = np.full((16, 16, 4), 200, np.uint8)
    picture[:8, :, 3] = 0
    assert np.array_equal(read(encode_webp(picture))[:, :, 3], picture[:, :, 3])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("names", ["Y", "RGB", "RGBA"])
def test_an_exr_is_read_as_what_it_was(tmp_path: Any, dtype: str, names: str) -> None:
    library = pytest.importorskip("OpenEXR")
    shape = (7, 9) if names == "Y" else (7, 9, len(names))
    values = RANDOM.normal(size=shape).astype(dtype)
    values[0, :3] = np.nan
    path = tmp_path / "picture.exr"
    path.write_bytes(encode_exr(values.copy("F")))
    with library.File(str(path)) as file:
        assert same(file.channels()[names].pixels, values)


def test_an_npy_is_read_as_what_it_was() -> None:
    values = RANDOM.normal(size=(3, 4, 3))
    assert same(np.load(io.BytesIO(encode_npy(values))), values)


@pytest.mark.parametrize(
    ("encode", "library", "extra"),
    [(encode_jpeg, "PIL", "image"), (encode_webp, "PIL", "image"), (encode_exr, "OpenEXR", "exr")],
)
def test_a_missing_library_is_named(
    monkeypatch: Any, encode: Any, library: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs {library}.*millpond\[{extra}\]"):
        encode(np.zeros((2, 2), np.uint8))
