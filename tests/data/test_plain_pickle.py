"""The reader of plain pickles: equal to pickle on plain data, and closed to everything else."""

from __future__ import annotations

import collections
import functools
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adgan_fast.data.plain_pickle import read_plain_pickle


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from(["u1", "i1", "<i4", ">i4", "<u8", "<f4", ">f8", "<f2", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    protocol=st.integers(0, 5),
    fortran=st.booleans(),
)
def test_arrays_of_numbers_are_read_as_pickle_reads_them(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    loaded = read_plain_pickle(pickle.dumps([{"a": array}], protocol), "test")[0]["a"]
    assert loaded.shape == array.shape
    assert loaded.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded, array)


@settings(max_examples=40, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    protocol=st.integers(0, 5),
)
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    assert read_plain_pickle(pickle.dumps(value, protocol), "test") == value


class Payload:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "refused"),
    [
        (os.mkdir, r"(posix|nt|os)\.mkdir"),
        (os.system, r"(posix|nt|os)\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (functools.partial, r"functools\.partial"),
        (getattr, r"(builtins|__builtin__)\.getattr"),
        (np.load, r"numpy\.load"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_is_refused_by_name_and_not_made(tmp_path: Path, protocol: int, call: Any, refused: str) -> None:
    mark = tmp_path / "executed"
    argument = {os.system: f"mkdir {mark}", eval: f"__import__('os').mkdir({str(mark)!r})"}.get(call, str(mark))
    with pytest.raises(ValueError, match=f"somewhere: .*refused {refused}"):
        read_plain_pickle(pickle.dumps({"data": Payload(call, argument)}, protocol), "somewhere")
    assert not mark.exists()


def test_the_payload_of_these_tests_would_be_executed_by_pickle(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(os.mkdir, str(tmp_path / "executed"))))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([os.getcwd], dtype=object),
        np.zeros(2, dtype=[("a", "u1"), ("b", "f4")]),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(2, dtype="M8[s]"),
        np.zeros(2, dtype=complex),
        np.float64(3.0),
        np.ma.masked_array([1, 2]),
        collections.OrderedDict(a=1),
        Payload(np.ndarray, (2,)),
        Payload(np.dtype, "O"),
        {1, 2} - {1},
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_whatever_is_not_plain_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(ValueError, match=r"test: not a plain pickle .*refused"):
        read_plain_pickle(pickle.dumps(value, protocol), "test")


def test_numpys_stand_ins_open_no_way_round() -> None:
    attempts = [
        b"cnumpy\nndarray\n)R.",  # a call of the class itself
        b"cnumpy\ndtype\n(S'u1'\ntR(I3\nS'x'\nNNNI-1\nI-1\nI0\ntb.",  # a byte order that is none
        b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",  # another codec
        b"cadgan_fast.data.plain_pickle\nos\n.",
        b"cnumpy\ncore.multiarray._reconstruct\n.",
        b"P0\n.",  # a persistent id
        b"cnumpy.core.multiarray\n_reconstruct\n)R(dS'__class__'\nNsb.",  # attributes in place of a state
    ]
    for data in attempts:
        with pytest.raises(ValueError, match="test: not a plain pickle"):
            read_plain_pickle(data, "test")


def test_damage_is_always_a_value_error() -> None:
    """Unless it is in a number or a name: then there is other plain data."""
    became = Counter[str]()

    @settings(max_examples=150)
    @given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(0, 255))
    def check(noise: bytes, position: int, byte: int) -> None:
        sound = bytearray(pickle.dumps({"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2]}, 2))
        sound[position % len(sound)] = byte
        for data in (noise, bytes(sound), bytes(sound[: position % len(sound)])):
            try:
                read_plain_pickle(data, "test")
            except ValueError as error:
                assert str(error).startswith("test: ")
                became["refused"] += 1
            else:
                became["read"] += 1

    check()
    assert became["refused"] >= 300, became
