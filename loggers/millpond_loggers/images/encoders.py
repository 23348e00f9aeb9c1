"""Pictures as the bytes of a file: one function for each format, arrays in, bytes out.

They open no file, keep no array, and may be called from several threads at once: the compressors
let other threads run.  The same array always gives the same bytes, as long as the libraries stay.

PNG and TIFF are written here, because the compression is nearly all that their writers do: with
ISA-L (``isal``) that is some ten times faster than the zlib in other writers.  Without ISA-L, the
standard library compresses; the pixels are the same.  JPEG and WebP need Pillow, EXR needs OpenEXR.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond_loggers.extras import require

_isal_compress: Callable[[Any, int], bytes] | None
try:
    from isal.isal_zlib import compress as _isal_compress
except ImportError:
    _isal_compress = None

COMPRESS_LEVEL: Final = 1
# The one level that is made by ISA-L, whose own levels differ little.
FAST_LEVEL: Final = 1
QUALITY: Final = 90
JPEG_SIDE_MAX: Final = 65_535
WEBP_SIDE_MAX: Final = 16_383
# The effort of the WebP encoder, 0 to 6: its default of 4 takes three times as long, for files that
# are a seventh smaller.
WEBP_METHOD: Final = 0

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_SUB: Final = 1  # Each byte is the difference from that of the pixel to the left.
_PNG_GREY: Final = 0
_PNG_PALETTE: Final = 3
_PNG_COLOUR_TYPES: Final = {3: 2, 4: 6}
_TIFF_SHORT: Final = 3
_TIFF_LONG: Final = 4
_TIFF_DEFLATE: Final = 8
_TIFF_SAMPLE_FORMATS: Final = {"u": 1, "i": 2, "f": 3}
_EXR_CHANNELS: Final = {1: "Y", 3: "RGB", 4: "RGBA"}

_Array = NDArray[Any]


def encode_png(planes: _Array, *, compress_level: int = COMPRESS_LEVEL) -> bytes:
    """A PNG file.

    Args:
        planes: (height, width), or (height, width, 3 or 4) for RGB and RGBA; uint8 or uint16.
        compress_level: 0 (none) to 9 (slow, smallest), as zlib's.

    Raises:
        ValueError: It is no such array.
    """
    colour_type = _PNG_GREY if planes.ndim == 2 else _PNG_COLOUR_TYPES.get(planes.shape[-1])
    if planes.dtype not in (np.uint8, np.uint16) or planes.ndim not in {2, 3} or not planes.size:
        colour_type = None
    if colour_type is None:
        raise ValueError(
            f"{planes.dtype} of shape {planes.shape} has no PNG: give uint8 or uint16 of shape "
            "(height, width), (height, width, 3) or (height, width, 4)"
        )
    return _png(planes, colour_type, compress_level)


def encode_palette_png(
    labels: _Array, colours: NDArray[np.uint8], *, compress_level: int = COMPRESS_LEVEL
) -> bytes:
    """A PNG file with a palette: looked at, each label has its colour; read, it is its number.

    Args:
        labels: (height, width), uint8.
        colours: (256, 3), uint8: red, green and blue of each label.
        compress_level: As for `encode_png`.

    Raises:
        ValueError: It is no such array.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(
            f"{labels.dtype} of shape {labels.shape} are no labels: give uint8 of shape "
            "(height, width)"
        )
    palette = colours[: int(labels.max()) + 1].tobytes()
    return _png(labels, _PNG_PALETTE, compress_level, palette)


def encode_tiff(planes: _Array, *, compress_level: int = COMPRESS_LEVEL) -> bytes:
    """A TIFF file that holds the values as they are, compressed by Deflate.

    Args:
        planes: (height, width), or (height, width, 3 or 4) for RGB and RGBA; whole numbers or
            floats of any size.
        compress_level: As for `encode_png`.

    Raises:
        ValueError: It is no such array.
    """
    planes_count = planes.shape[2] if planes.ndim == 3 else 1
    sample_format = _TIFF_SAMPLE_FORMATS.get(planes.dtype.kind)
    if sample_format is None or planes_count not in {1, 3, 4} or planes.ndim < 2:
        raise ValueError(
            f"{planes.dtype} of shape {planes.shape} has no TIFF: give numbers of shape "
            "(height, width), (height, width, 3) or (height, width, 4)"
        )
    strip = _deflate(np.ascontiguousarray(planes, planes.dtype.newbyteorder("<")), compress_level)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(strip) + len(strip) % 2)
    per_plane = [8 * planes.dtype.itemsize] * planes_count
    fields = {
        256: (_TIFF_LONG, [planes.shape[1]]),
        257: (_TIFF_LONG, [planes.shape[0]]),
        258: (_TIFF_SHORT, per_plane),
        259: (_TIFF_SHORT, [_TIFF_DEFLATE]),
        262: (_TIFF_SHORT, [1 if planes_count == 1 else 2]),  # Black is 0; or RGB.
        273: (_TIFF_LONG, [len(head)]),  # Where the strip begins.
        277: (_TIFF_SHORT, [planes_count]),
        278: (_TIFF_LONG, [planes.shape[0]]),  # All rows are in it.
        279: (_TIFF_LONG, [len(strip)]),
        284: (_TIFF_SHORT, [1]),  # The colours of a pixel lie side by side.
        **({338: (_TIFF_SHORT, [2])} if planes_count == 4 else {}),  # Plain alpha.
        339: (_TIFF_SHORT, [sample_format] * planes_count),
    }
    padding = b"\0" * (len(strip) % 2)
    return head + strip + padding + _tiff_directory(fields, len(head) + len(strip) + len(padding))


def encode_jpeg(planes: NDArray[np.uint8], *, quality: int = QUALITY) -> bytes:
    """A JPEG file.

    Args:
        planes: (height, width) or (height, width, 3), uint8; no side above `JPEG_SIDE_MAX`.
        quality: 1 to 100.

    Raises:
        millpond.errors.ConfigError: Pillow is not installed.
    """
    return _by_pillow(planes, "JPEG", quality=quality)


def encode_webp(planes: NDArray[np.uint8], *, quality: int = QUALITY) -> bytes:
    """A WebP file, with loss.

    Args:
        planes: (height, width), (height, width, 3) or (height, width, 4), uint8; no side above
            `WEBP_SIDE_MAX`.  One plane is read back as three equal ones.
        quality: 1 to 100.

    Raises:
        millpond.errors.ConfigError: Pillow is not installed.
    """
    return _by_pillow(planes, "WEBP", quality=quality, method=WEBP_METHOD)


def encode_exr(planes: _Array) -> bytes:
    """An OpenEXR file, without loss: ``Y``, or ``R``, ``G``, ``B`` and perhaps ``A``.

    Args:
        planes: (height, width), or (height, width, 3 or 4); float16 or float32.

    Raises:
        millpond.errors.ConfigError: OpenEXR is not installed.
    """
    library: Any = require("OpenEXR", extra="exr", what="encoding exr")
    name = _EXR_CHANNELS[planes.shape[2] if planes.ndim == 3 else 1]
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    file = io.BytesIO()
    # No threads of its own: whoever calls this has as many as it wants.
    with library.File(header, {name: np.ascontiguousarray(planes)}, num_threads=0) as picture:
        picture.write(file)
    return file.getvalue()


def encode_npy(planes: _Array) -> bytes:
    """An NPY file: any array, as it is."""
    file = io.BytesIO()
    np.save(file, planes, allow_pickle=False)
    return file.getvalue()


def _deflate(content: _Array, level: int) -> bytes:
    if level == FAST_LEVEL and _isal_compress is not None:
        return _isal_compress(content, FAST_LEVEL)
    return zlib.compress(content.data, level)


def _png(planes: _Array, colour_type: int, level: int, palette: bytes = b"") -> bytes:
    height, width = planes.shape[:2]
    pixels = np.ascontiguousarray(planes, planes.dtype.newbyteorder(">"))
    values = pixels.view(np.uint8).reshape(height, -1)
    pixel_bytes = values.shape[1] // width
    rows = np.empty((height, 1 + values.shape[1]), np.uint8)
    rows[:, 0] = _PNG_SUB
    rows[:, 1 : 1 + pixel_bytes] = values[:, :pixel_bytes]
    np.subtract(values[:, pixel_bytes:], values[:, :-pixel_bytes], out=rows[:, 1 + pixel_bytes :])
    bits = 8 * planes.dtype.itemsize
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"".join(
        (
            _PNG_SIGNATURE,
            _png_part(b"IHDR", head),
            _png_part(b"PLTE", palette) if palette else b"",
            _png_part(b"IDAT", _deflate(rows, level)),
            _png_part(b"IEND", b""),
        )
    )


def _png_part(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))


def _tiff_directory(fields: dict[int, tuple[int, list[int]]], start: int) -> bytes:
    """The directory of a TIFF file, where `start` is its place; the tags are in order."""
    outside_start = start + 2 + 12 * len(fields) + 4
    entries = []
    outside = b""  # Values that have no room in their entry.
    for tag, (kind, values) in fields.items():
        content = struct.pack(f"<{len(values)}{'H' if kind == _TIFF_SHORT else 'I'}", *values)
        if len(content) > 4:
            place = struct.pack("<I", outside_start + len(outside))
            outside += content
            content = place
        entries.append(struct.pack("<HHI4s", tag, kind, len(values), content))
    return struct.pack("<H", len(fields)) + b"".join(entries) + b"\0\0\0\0" + outside


def _by_pillow(planes: NDArray[np.uint8], format_name: str, **settings: int) -> bytes:
    pillow: Any = require("PIL.Image", extra="image", what=f"encoding {format_name.lower()}")
    file = io.BytesIO()
    pillow.fromarray(np.ascontiguousarray(planes)).save(file, format_name, **settings)
    return file.getvalue()
