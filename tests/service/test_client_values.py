"""What a renderer hands over is taken as it is meant, or refused with what was expected."""

import enum
import json
import math
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.client_values import (
    DEPTH_MAX,
    ID_BYTES_MAX,
    channels_of,
    encode_job,
    unknown_channel,
    write_value,
)
from millpond.core.layout import DTYPE_BYTES, Channel
from millpond.core.wire import BODY_BYTES_MAX
from millpond.errors import InvalidResult

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
UNWRITABLE = 10**5000  # Python refuses to write that many digits.


def short(value) -> str:
    """The name of a case: pytest's own would be endless for some."""
    try:
        return ascii(value)[:40]
    except ValueError:
        return "unwritable"


class Color(enum.Enum):
    RED = "red"


class Named(str, enum.Enum):  # noqa: UP042 - its str() is Named.RED
    RED = "red"


class Numbered(enum.IntEnum):
    THREE = 3


class Measured(float, enum.Enum):
    HALF = 0.5


class Arraylike:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


class Dlpack:
    """Only `__dlpack__`, as the tensors of jax and others."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Elsewhere(Dlpack):
    """On a device that numpy cannot reach."""

    def __dlpack__(self, **options):
        raise BufferError("it lies on the GPU")


class Tensor:
    """As torch's: an array comes out only after `detach` and `cpu`, in this order."""

    def __init__(self, array, steps=()):
        self._array = array
        self._steps = steps

    def detach(self):
        return Tensor(self._array, (*self._steps, "detach"))

    def cpu(self):
        return Tensor(self._array, (*self._steps, "cpu"))

    def __array__(self, dtype=None, copy=None):
        if self._steps != ("detach", "cpu"):
            raise RuntimeError("it has gradients and lies on the GPU")
        return self._array


def written(shape, dtype, value):
    """Write a value into the middle one of three slots, and give what is there."""
    channel = Channel("x", shape, dtype)
    array = np.zeros((3, *shape), dtype)
    write_value(array, 1, channel, value)
    assert not array[0].any()
    assert not array[2].any()
    return array[1]


def refusal(shape, dtype, value) -> str:
    """The message about a value that must be refused; nothing may have been written."""
    channel = Channel("x", shape, dtype)
    array = np.full((1, *shape), 1, dtype)
    with pytest.raises(InvalidResult) as refused:
        write_value(array, 0, channel, value)
    assert (array == 1).all()
    message = str(refused.value)
    assert message.startswith(f"channel 'x': expected shape {shape} {dtype}, got ")
    assert len(message) < 300
    return message.partition(", got ")[2]


# Channels.


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_a_dtype_may_be_given_in_every_way_that_numpy_knows(dtype) -> None:
    wanted = (Channel("x", (2,), dtype),)
    kind = np.dtype(dtype)
    for given_dtype in (dtype, kind, kind.type, kind.str, kind.char, f"torch.{dtype}"):
        assert channels_of({"x": ((2,), given_dtype)}) == wanted


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((), ()),
        ([], ()),
        (3, (3,)),
        ([3, 4], (3, 4)),
        (np.array([3, 4]), (3, 4)),
        ((np.int64(3), np.uint8(4)), (3, 4)),
        (np.zeros((5, 6)).shape, (5, 6)),
    ],
    ids=short,
)
def test_a_shape_may_be_any_row_of_whole_numbers(shape, wanted) -> None:
    (channel,) = channels_of({"x": (shape, "float32")})
    assert channel.shape == wanted
    assert all(type(length) is int for length in channel.shape)


def test_channels_keep_their_order() -> None:
    assert [c.name for c in channels_of({"b": ((), "bool"), "a": ((), "bool")})] == ["b", "a"]
    assert channels_of(MappingProxyType({"b": [[], bool]})) == (Channel("b", (), "bool"),)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (5, "must be (shape, dtype), such as ((3, 256, 256), 'float32'), not 5"),
        (None, "not None"),
        (((3,),), "not ((3,),)"),
        (((3,), "float33"), "float33"),
        (((3,), ""), "data type ''"),
        (((3,), None), "data type 'None'"),
        (((3,), "torch.bfloat16"), "bfloat16"),
        (((3,), object), "dtype 'object' is none of bool, int8"),
        (((3,), "datetime64[s]"), "datetime64"),
        (((3,), "longdouble"), "float128"),
        (((3,), "f4,f4"), "void"),
        (((3,), ">f4"), ">f4 is not in this machine's byte order"),
        (((3.5,), "float32"), "(3.5,)"),
        (("34", "float32"), "('34', 'float32')"),
        (((math.inf,), "float32"), "inf"),
        (((0,), "float32"), "dimension 0"),
        (((-1,), "float32"), "dimension -1"),
        (((2**40,), "float32"), "is not a whole number from 1 to"),
        (True, "not True"),
        ((True, "float32"), "dimension True"),
        (((1,) * 9, "float32"), "9 dimensions"),
        (((3.5, UNWRITABLE), "float32"), "too long to show"),
    ],
    ids=short,
)
def test_an_impossible_channel_is_named_with_the_reason(spec, words) -> None:
    with pytest.raises(InvalidResult) as refused:
        channels_of({"depth": spec})
    assert "'depth'" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a" * 65, "é", "a\n", 1])
def test_a_channel_cannot_have_any_name(name) -> None:
    with pytest.raises(InvalidResult, match="channel name"):
        channels_of({name: ((), "bool")})


@pytest.mark.parametrize("declared", [["rgb"], "rgb", 5])
def test_channels_that_are_no_mapping_are_refused(declared) -> None:
    with pytest.raises(InvalidResult, match=r"must map names to \(shape, dtype\)"):
        channels_of(declared)


# Arrays.


@pytest.mark.parametrize("wrap", [np.asarray, Arraylike, Dlpack, Tensor])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "bool"])
def test_an_array_is_taken_from_whatever_holds_it(wrap, dtype) -> None:
    value = np.arange(6).reshape(2, 3).astype(dtype)
    assert np.array_equal(written((2, 3), dtype, wrap(value)), value)


def test_an_array_need_not_be_contiguous() -> None:
    value = np.arange(12, dtype=np.float32).reshape(4, 3).T[:, ::-2]
    assert np.array_equal(written((3, 2), "float32", value), value)


def test_an_array_is_copied() -> None:
    value = np.zeros(3, np.float32)
    array = np.zeros((1, 3), np.float32)
    write_value(array, 0, Channel("x", (3,), "float32"), value)
    value[:] = 5
    assert not array.any()


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.zeros((2, 3), np.float64), "shape (2, 3) float64"),
        (np.zeros((2, 3), np.int32), "shape (2, 3) int32"),
        (np.zeros((2, 3), ">f4"), "shape (2, 3) >f4"),
        (np.zeros((3, 2), np.float32), "shape (3, 2) float32"),
        (np.zeros((1, 2, 3), np.float32), "shape (1, 2, 3) float32"),
        (np.zeros(6, np.float32), "shape (6,) float32"),
        (np.zeros((1, 3), np.float32), "shape (1, 3) float32"),
        (np.float32(1), "shape () float32"),
        (1.0, "shape () float64"),
        (None, "shape () object"),
        ("zero", "shape () <U4"),
        ([[1, 2, 3], [4, 5, 6]], "shape (2, 3) int64"),
        ([[1], [2, 3]], "list that is no array"),
        (Tensor(np.zeros((2, 3)), ("cpu",)), "Tensor that is no array (it has gradients"),
        (Elsewhere(np.zeros((2, 3))), "Elsewhere that is no array (it lies on the GPU)"),
        ({"a": 1}, "shape () object"),
    ],
    ids=short,
)
def test_an_array_of_another_shape_or_dtype_is_refused(value, got) -> None:
    """Nothing is broadcast or converted behind the renderer's back."""
    assert got in refusal((2, 3), "float32", value)


# Scalars.


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bool", True),
        ("uint8", True),
        ("uint8", 255),
        ("int8", -128),
        ("int64", -(2**63)),
        ("uint64", 2**64 - 1),
        ("float16", 65504),
        ("float32", 3),
        ("float32", 0.5),
        ("float32", True),
        ("float32", math.inf),
        ("float32", -math.inf),
        ("float64", 1e308),
        ("float64", 2**200),
        ("complex64", 1),
        ("complex64", 0.5),
        ("complex64", 1 + 2j),
        ("complex128", complex(math.inf, 1)),
        ("uint8", np.int64(255)),
        ("int8", np.uint64(127)),
        ("float32", np.float64(0.25)),
        ("float32", np.int32(7)),
        ("float32", np.float16(0.5)),
        ("float32", np.array([0.5])),
        ("bool", np.bool_(True)),
        ("uint8", np.array(3)),
        ("float64", np.array(0.5, ">f4")),
        ("uint8", Numbered.THREE),
        ("float32", Measured.HALF),
        ("float32", Arraylike(np.array(0.5))),
        ("float32", Dlpack(np.array([0.5], np.float32))),
        ("float32", Tensor(np.array(0.5))),
    ],
    ids=short,
)
def test_a_scalar_goes_up(shape, dtype, value) -> None:
    wanted = value._array if isinstance(value, (Arraylike, Dlpack, Tensor)) else value
    found = written(shape, dtype, value)
    assert np.asarray(found).shape == shape
    assert np.asarray(found).dtype == dtype
    assert np.all(found == wanted)


@pytest.mark.parametrize("value", [math.nan, np.float64("nan"), np.float32("nan")])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_no_number_stays_none(dtype, value) -> None:
    assert np.isnan(written((), dtype, value))


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bool", 1),
        ("bool", 0.0),
        ("bool", np.uint8(1)),
        ("uint8", 1.0),
        ("int64", 1.0),
        ("int64", math.nan),
        ("int64", np.float32(1)),
        ("float32", 1j),
        ("float64", np.complex64(1)),
        ("float32", "1"),
        ("float32", b"1"),
        ("float32", None),
        ("int64", np.datetime64("2020-01-01")),
        ("int64", np.timedelta64(1, "s")),
    ],
    ids=short,
)
def test_a_scalar_never_goes_down(shape, dtype, value) -> None:
    refusal(shape, dtype, value)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("int8", 128),
        ("int8", -129),
        ("int64", 2**63),
        ("uint64", 2**64),
        ("uint64", -1),
        ("uint8", np.int64(256)),
        ("uint8", np.int8(-1)),
        ("int64", np.uint64(2**63)),
        ("int64", UNWRITABLE),
        ("float16", 65505),
        ("float16", 1e5),
        ("float32", 1e39),
        ("float32", -1e300),
        ("float32", 10**39),
        ("float32", np.float64(1e39)),
        ("float64", 10**400),
        ("float64", UNWRITABLE),
        ("complex64", 1e39),
        ("complex64", complex(0, 1e39)),
        ("complex64", np.complex128(-1e39)),
    ],
    ids=short,
)
def test_a_number_that_does_not_fit_never_becomes_another(shape, dtype, value) -> None:
    """Not by wrapping round, and not by becoming infinite."""
    refusal(shape, dtype, value)


def test_the_message_shows_the_number() -> None:
    assert refusal((), "uint8", 300) == "300, which is out of its range"
    assert refusal((), "uint8", 1.5) == "1.5, which is float64 and does not fit"
    assert "too long to show" in refusal((), "uint8", UNWRITABLE)


@pytest.mark.parametrize("dtype", [d for d in sorted(DTYPE_BYTES) if np.dtype(d).kind in "ui"])
@given(value=st.integers(-(2**65), 2**65))
def test_a_whole_number_is_kept_exactly_or_refused(dtype, value) -> None:
    limits = np.iinfo(dtype)
    if limits.min <= value <= limits.max:
        assert int(written((), dtype, value)) == value
    else:
        assert refusal((), dtype, value) == f"{value}, which is out of its range"


# Ids.


@pytest.mark.parametrize(
    "id",
    [
        "a",
        "0",
        " ",
        "../../etc/passwd",
        "x" * 300,
        "x" * ID_BYTES_MAX,
        "é" * (ID_BYTES_MAX // 2),
        FAMILY,
        "\N{RIGHT-TO-LEFT OVERRIDE}abc",
        '"\\',
        Named.RED,
        np.str_("red"),
    ],
    ids=short,
)
def test_an_id_may_be_any_text(id) -> None:
    assert json.loads(encode_job(id, {}, None)) == {"id": str.__str__(id), "render_args": {}}


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("", "at least one character, not ''"),
        (None, "not None"),
        (5, "not 5"),
        (b"a", "not b'a'"),
        (UNWRITABLE, "too long to show"),
        ("x" * (ID_BYTES_MAX + 1), "id of 1025 bytes, at most 1024"),
        ("é" * 513, "id of 1026 bytes"),
        ("x" * 10**6, "id of 1000000 bytes"),
        ("a\0b", r"id 'a\x00b' has control characters"),
        ("a\nb", r"id 'a\nb' has control characters"),
        ("a\n", r"id 'a\n' has control characters"),
        ("\x1b[2J", "control characters"),
        ("\x7f", "control characters"),
        ("\x85", "control characters"),
        ("\n" * 10**6, "control characters"),
        ("\ud800", "half a character"),
        ("\ud83d\udc68", "half a character"),
    ],
    ids=short,
)
def test_an_id_that_is_no_name_is_refused(id, words) -> None:
    with pytest.raises(InvalidResult) as refused:
        encode_job(id, {}, None)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300


# Render arguments and fields.


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        (True, True),
        (-0.0, -0.0),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        ("ü\n\0\x1b", "ü\n\0\x1b"),
        (FAMILY, FAMILY),
        ((1, [2, ()]), [1, [2, []]]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": {}}), {"a": {}}),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(False), False),
        (np.str_("red"), "red"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(1.5), 1.5),
        ([np.uint8(1), {"k": np.float64(2)}], [1, {"k": 2.0}]),
        (Named.RED, "red"),
        (Numbered.THREE, 3),
        (Measured.HALF, 0.5),
        ({Named.RED: 1}, {"red": 1}),
    ],
    ids=short,
)
def test_plain_values_arrive_as_they_are(value, wanted) -> None:
    body = encode_job("a", {"x": value}, {"y": value})
    assert json.loads(body) == {"id": "a", "render_args": {"x": wanted}, "y": wanted}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "render_args.x is nan"),
        (math.inf, "render_args.x is inf"),
        (-math.inf, "render_args.x is -inf"),
        (np.float32("nan"), "render_args.x is nan"),
        (np.array([1, np.inf]), "render_args.x[1] is inf"),
        ([1, {"k": (math.nan,)}], "render_args.x[1].k[0] is nan"),
        (2**63, "render_args.x is 9223372036854775808: it does not fit 64 bits"),
        (-(2**63) - 1, "does not fit 64 bits"),
        (np.uint64(2**64 - 1), "does not fit 64 bits"),
        (UNWRITABLE, "too long to show>: it does not fit 64 bits"),
        (np.longdouble(1), "is a longdouble"),
        ("\ud800", "half a character"),
        ({"\ud800": 1}, "half a character"),
        (b"a", "render_args.x is a bytes: JSON holds numbers, text, lists and maps"),
        (bytearray(b"a"), "is a bytearray"),
        ({1, 2}, "is a set"),
        (frozenset(), "is a frozenset"),
        (1j, "is a complex"),
        (Color.RED, "is a Color"),
        (Path("a"), "is a PosixPath"),
        (object, "is a type"),
        (np.datetime64("2020-01-01"), "is a date"),
        ({1: 2}, "render_args.x: key 1 is no text"),
        ({None: 2}, "key None is no text"),
        ({True: 2}, "key True is no text"),
        ({(1, 2): 2}, "key (1, 2) is no text"),
        ({b"a": 2}, "key b'a' is no text"),
        ({UNWRITABLE: 2}, "too long to show> is no text"),
        ({"1": 1, 1: 2}, "key 1 is no text"),
        ("x" * BODY_BYTES_MAX, "at most 65536 are possible; put large data into a channel"),
        (np.zeros(10**5), "put large data into a channel"),
    ],
    ids=short,
)
def test_what_json_cannot_hold_is_refused_by_its_place(value, words) -> None:
    with pytest.raises(InvalidResult) as refused:
        encode_job("a", {"x": value}, None)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_is_limited_however_deep_it_goes() -> None:
    encode_job("a", {"x": nested(DEPTH_MAX - 1)}, None)
    endless: list = []
    endless.append(endless)
    for value in (nested(DEPTH_MAX), nested(100_000), endless):
        with pytest.raises(InvalidResult, match=f"more than {DEPTH_MAX} levels deep"):
            encode_job("a", {"x": value}, None)


@pytest.mark.parametrize("wrong", [[1], "text", 5, {"set"}])
def test_render_args_and_fields_must_map_names(wrong) -> None:
    with pytest.raises(InvalidResult, match="render_args must map names to values"):
        encode_job("a", wrong, None)
    with pytest.raises(InvalidResult, match="fields must map names to values"):
        encode_job("a", {}, wrong)


@pytest.mark.parametrize("name", ["id", "render_args", "result_ix"])
def test_fields_cannot_take_the_place_of_ours(name) -> None:
    with pytest.raises(InvalidResult, match=f"'{name}': millpond gives it a meaning"):
        encode_job("a", {}, {name: 1})


def test_fields_are_checked_as_render_args_are() -> None:
    with pytest.raises(InvalidResult, match=r"fields\.f is nan"):
        encode_job("a", {}, {"f": math.nan})
    with pytest.raises(InvalidResult, match="fields: key 1 is no text"):
        encode_job("a", {}, {1: 1})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(id=st.text(max_size=20), render_args=st.dictionaries(st.text(), JSON_VALUES, max_size=3))
def test_a_job_is_strict_json_of_the_same_values_or_refused(id, render_args) -> None:
    try:
        body = encode_job(id, render_args, None)
    except InvalidResult:
        return

    def reject(pairs):
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    job = json.loads(body, object_pairs_hook=reject, parse_constant=pytest.fail)
    assert job == {"id": id, "render_args": render_args}


@pytest.mark.parametrize("value", [1, 0, np.int64(1), 1.0])
def test_a_number_for_yes_or_no_is_refused_with_what_to_write(value) -> None:
    assert refusal((), "bool", value).endswith(" and does not fit; write bool(...)")


def test_a_channel_that_there_is_not_is_told_with_the_nearest() -> None:
    channels = [Channel("rgb", (2, 3), "float32"), Channel("loss", (), "float32")]
    known = "the channels are rgb (2, 3) float32, loss () float32"
    assert str(unknown_channel("los", channels)) == (
        f"no channel 'los'; did you mean 'loss'? {known}"
    )
    assert str(unknown_channel("depth", channels)) == f"no channel 'depth'; {known}"
