"""Which encoding can hold which channel: said before the first result."""

import io
import sys
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from millpond.errors import ConfigError
from millpond_loggers.images.image_encoding import (
    EXTENSIONS,
    Encoding,
    Settings,
    is_image,
    plan_encoding,
    possible_encodings,
)


@pytest.mark.parametrize(
    ("dtype", "planes", "possible"),
    [
        ("bool", 1, "auto png palette jpeg webp tiff npy"),
        ("bool", 3, "auto png jpeg webp tiff npy"),
        ("uint8", 1, "auto png palette jpeg webp tiff npy"),
        ("uint8", 3, "auto png jpeg webp tiff npy"),
        ("uint8", 4, "auto png webp tiff npy"),
        ("uint16", 1, "auto png palette tiff npy"),
        ("uint16", 3, "auto png tiff npy"),
        ("int64", 1, "auto png palette tiff npy"),
        ("float16", 1, "auto tiff exr npy"),
        ("float32", 1, "auto tiff exr npy"),
        ("float64", 1, "auto tiff npy"),
        ("float32", 3, "auto png jpeg webp tiff exr npy"),
        ("float32", 4, "auto png webp tiff exr npy"),
        ("float64", 3, "auto png jpeg webp tiff npy"),
    ],
)
def test_each_kind_of_channel_has_its_encodings(dtype: str, planes: int, possible: str) -> None:
    assert possible_encodings(np.dtype(dtype), planes) == possible.split()
    shape = (5, 6) if planes == 1 else (planes, 5, 6)
    for encoding in get_args(Encoding):
        if encoding in possible.split():
            encode = plan_encoding("x", shape, dtype, encoding, Settings())
            extension, content = encode(np.ones(shape, dtype))
            assert extension in EXTENSIONS
            assert content
        else:
            text = rf"'x' \({dtype}, .*\) cannot be written as {encoding}; possible: auto"
            with pytest.raises(ValueError, match=text):
                plan_encoding("x", shape, dtype, encoding, Settings())


@pytest.mark.parametrize(
    ("dtype", "value", "extension"),
    [("int32", 255, "png"), ("int32", 256, "png"), ("int32", -1, "tiff"), ("int64", 2**40, "npy")],
)
@pytest.mark.parametrize("encoding", ["auto", "png", "palette"])
def test_numbers_too_large_for_a_png_are_written_without_loss_all_the_same(
    dtype: str, value: int, extension: str, encoding: Any
) -> None:
    """They depend on the result: an error would lose it."""
    encode = plan_encoding("labels", (4, 4), dtype, encoding, Settings())
    values = np.full((4, 4), value, dtype)
    found, content = encode(values)
    assert found == extension
    if extension == "npy":
        assert np.array_equal(np.load(io.BytesIO(content)), values)
        return
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.array(image), values)
        assert (image.mode == "P") == (encoding == "palette" and value == 255)


def test_a_mask_can_have_a_palette() -> None:
    encode = plan_encoding("mask", (2, 2), "bool", "palette", Settings())
    _, content = encode(np.eye(2, dtype=bool))
    with Image.open(io.BytesIO(content)) as image:
        assert np.array(image).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("bool", "uint8"), ("int8", "int8"), ("float16", "float32"), ("float64", "float64")],
)
def test_a_tiff_has_types_that_programs_can_read(dtype: str, stored: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    encode = plan_encoding("x", (1, 2, 3), dtype, "tiff", Settings())
    found = tifffile.imread(io.BytesIO(encode(np.ones((1, 2, 3), dtype))[1]))
    assert found.dtype == stored
    assert found.shape == (2, 3)
    assert (found == (255 if dtype == "bool" else 1)).all()


@pytest.mark.parametrize(("encoding", "side"), [("jpeg", 65_535), ("webp", 16_383)])
def test_a_side_that_is_too_long_is_refused(encoding: Any, side: int) -> None:
    plan_encoding("rgb", (3, 2, side), "uint8", encoding, Settings())
    text = f"'rgb' is {side + 1} x 2 pixels; {encoding} holds {side} on a side"
    with pytest.raises(ValueError, match=text):
        plan_encoding("rgb", (3, 2, side + 1), "uint8", encoding, Settings())


@pytest.mark.parametrize(
    ("encoding", "library"), [("jpeg", "PIL"), ("webp", "PIL"), ("exr", "OpenEXR")]
)
def test_a_missing_library_is_an_error_before_the_first_result(
    monkeypatch: Any, encoding: Any, library: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f"encoding {encoding} needs {library}"):
        plan_encoding("rgb", (3, 4, 4), "float32", encoding, Settings())


def test_the_settings_reach_the_encoders() -> None:
    values = np.random.default_rng(0).random((3, 32, 32), np.float32)
    sizes = []
    for quality in (5, 95):
        encode = plan_encoding("x", (3, 32, 32), "float32", "jpeg", Settings(quality=quality))
        sizes.append(len(encode(values)[1]))
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [((3, 4, 4), "float32", True), ((4, 4), "complex64", False), ((), "float32", False)],
)
def test_an_image_is_known_by_shape_and_dtype(shape: Any, dtype: str, *, expected: bool) -> None:
    assert is_image(shape, dtype) is expected
