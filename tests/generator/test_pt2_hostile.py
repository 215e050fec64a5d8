"""A saved program runs no code when it is loaded, whatever stands in the file."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adgan_fast.generator.exported import load_exported
from tests.support.exports import EXPORTS, Residual, build, dcgan, latents
from tests.support.pt2_files import (
    MODEL,
    WEIGHTS,
    Payload,
    Records,
    code,
    edit,
    nodes,
    records,
    retarget,
    weight,
    write,
)


def test_the_payloads_of_these_tests_would_run(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()
    marker.unlink()
    eval(code(marker))
    assert marker.exists()


def test_a_rewritten_archive_still_loads(pt2, tmp_path):
    loaded = load_exported(write(tmp_path / "again.pt2", records(pt2)))
    assert torch.equal(loaded(latents(2)), build(dcgan)(latents(2)))


@pytest.mark.parametrize("how", EXPORTS)
def test_pickles_and_expressions_in_a_file_are_never_touched(how, saved, tmp_path):
    """They lie where torch.export.load would unpickle and evaluate them; the program itself is sound, so it loads."""
    marker = tmp_path / "ran"
    content = records(saved(Residual, how)[1])
    content["data/sample_inputs/model.pt"] = pickle.dumps(Payload(marker))

    def poison(value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                if key in ("expr_str", "in_spec", "out_spec", "stack_trace", "nn_module_stack", "torch_fn"):
                    value[key] = code(marker)
                else:
                    poison(value[key])
        elif isinstance(value, list):
            for item in value:
                poison(item)

    edit(content, MODEL, poison)
    edit(content, MODEL, lambda table: table.update(guards_code=[code(marker)], verifiers=["os.system"]))
    loaded = load_exported(write(tmp_path / "hostile.pt2", content))
    assert torch.equal(loaded(latents(3)), build(Residual)(latents(3)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu.default.__class__",
        "torch.ops.aten.relu._op",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_data.default",
        "torch.ops.aten.add.out",
        "torch.ops.aten.randn.default",
        "torch.ops.higher_order.cond",
        "torch.ops.load_library",
        "torch.ops.prims.add.default",
        "torch.load",
        "torch.hub.load",
        "torch.serialization.os.system",
        "_operator.attrgetter",
        "_operator.pow",
        "math.factorial",
        "os.system",
        "posix.system",
        "builtins.eval",
        "#extension:op",
        "torch.ops.aten.relu.default\n",
        "",
        None,
        ["torch.ops.aten.relu.default"],
    ],
)
def test_a_target_off_the_list_is_refused_and_nothing_runs(target, pt2, tmp_path):
    marker = tmp_path / "ran"
    content = records(pt2)
    name = nodes(json.loads(content[MODEL]))[1]["name"]
    for argument in (code(marker), f"touch {marker}", str(marker)):
        edit(content, MODEL, retarget(target, {"as_string": argument}, {"as_string": str(marker)}))
        with pytest.raises(ValueError, match=f"hostile.pt2: node {name}: ") as caught:
            load_exported(write(tmp_path / "hostile.pt2", content))
        assert str(target)[:40] in str(caught.value)
        assert re.search("is not among the operators|does not exist in torch", str(caught.value))
        assert not marker.exists()


def test_an_operator_that_creates_files_is_refused(pt2, tmp_path):
    """Why the list is explicit: by the pattern `torch.ops.aten.*` a file could resize or overwrite any other."""
    marker = tmp_path / "ran"
    torch.ops.aten.from_file(str(marker), True, 4)
    assert marker.exists()
    marker.unlink()
    arguments = {"filename": {"as_string": str(marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}

    def insert(table: Any) -> None:
        inputs = [{"name": name, "arg": argument, "kind": 1} for name, argument in arguments.items()]
        nodes(table).insert(0, {"target": "torch.ops.aten.from_file.default", "inputs": inputs, "outputs": []})

    content = records(pt2)
    edit(content, MODEL, insert)
    with pytest.raises(ValueError, match="is not among the operators"):
        load_exported(write(tmp_path / "hostile.pt2", content))
    assert not marker.exists()


def relu(*arguments: dict[str, Any]) -> Callable[[Any], None]:
    return retarget("torch.ops.aten.relu.default", *arguments)


def rename(content: Records, name: str) -> None:
    """Give the first weight another name, in the graph and in the table of weights."""
    for record in (MODEL, WEIGHTS):
        assert b'"1.weight"' in content[record]
        content[record] = content[record].replace(b'"1.weight"', json.dumps(name).encode())


TAMPERED: dict[str, tuple[Callable[[Records, Path], Any], str]] = {
    "pickled_weight": (
        lambda c, m: (
            c.update({"data/weights/weight_0": pickle.dumps(Payload(m))}),
            edit(c, WEIGHTS, weight(use_pickle=True)),
        ),
        "stored as a pickle",
    ),
    "pickled_state": (lambda c, m: c.update({"data/weights/model.pt": pickle.dumps(Payload(m))}), "one pickle"),
    "custom_object": (
        lambda c, m: edit(c, MODEL, lambda t: t["graph_module"]["signature"]["input_specs"].append(
            {"custom_obj": {"arg": {"name": "x", "class_fqn": "os.system"}, "custom_obj_name": "x"}})),
        "'custom_obj' is not supported",
    ),
    "graph_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_graph": {"name": code(m)}})),
        "'as_graph', which is not supported",
    ),
    "operator_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_operator": "os.system"})),
        "'as_operator', which is not supported",
    ),
    "code_for_a_number": (
        lambda c, m: edit(c, MODEL, relu({"as_int": code(m)})), "where a int belongs",
    ),
    "code_for_a_float": (
        lambda c, m: edit(c, MODEL, relu({"as_float": code(m)})),
        "could not convert string to float",
    ),
    "code_for_a_device": (
        lambda c, m: edit(c, MODEL, relu({"as_device": {"type": code(m)}})),
        "Invalid device",
    ),
    "unknown_name": (
        lambda c, m: edit(c, MODEL, relu({"as_tensor": {"name": code(m)}})),
        "before it is made",
    ),
    "unknown_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_int": 1})), "takes no argument 'a0'",
    ),
    "path_upwards": (lambda c, m: edit(c, WEIGHTS, weight(path_name="../../../etc/passwd")), "is missing"),
    "path_absolute": (lambda c, m: edit(c, WEIGHTS, weight(path_name="/etc/passwd")), "is missing"),
    "method_name": (lambda c, m: rename(c, "forward"), "'forward'"),
    "empty_name": (lambda c, m: rename(c, "1..w"), "'1..w'"),
    "dunder_name": (
        lambda c, m: rename(c, "__class__.w"), "'__class__.w'",
    ),
    "huge_sizes": (lambda c, m: edit(c, WEIGHTS, weight(sizes=[{"as_int": 2**40}], strides=[{"as_int": 1}])), "needs"),
    "beyond_the_record": (lambda c, m: edit(c, WEIGHTS, weight(storage_offset={"as_int": 1})), "needs"),
    "negative_offset": (lambda c, m: edit(c, WEIGHTS, weight(storage_offset={"as_int": -4})), "offset -4"),
    "negative_stride": (lambda c, m: edit(c, WEIGHTS, weight(strides=[{"as_int": -1}] * 4)), "strides"),
    "ragged_record": (lambda c, m: c.update({"data/weights/weight_0": b"\0" * 100001}), "no multiple"),
    "short_record": (lambda c, m: c.update({"data/weights/weight_0": b"\0"}), "its record has 1"),
    "unknown_dtype": (lambda c, m: edit(c, WEIGHTS, weight(dtype=99)), "dtype number 99"),
    "sparse": (lambda c, m: edit(c, WEIGHTS, weight(layout=1)), "not a dense tensor"),
    "weight_missing": (lambda c, m: c.pop("data/weights/weight_0"), "weight_0' is missing"),
    "no_graph": (lambda c, m: c.pop(MODEL), "0 programs"),
    "two_graphs": (lambda c, m: c.update({"models/b.json": c[MODEL]}), "2 programs"),
    "compiled": (lambda c, m: (c.pop(MODEL), c.update({"data/aotinductor/model/a.so": b""})), "machine code"),
    "schema_7": (lambda c, m: edit(c, MODEL, lambda t: t["schema_version"].update(major=7)), "schema 7"),
    "archive_version": (lambda c, m: c.update(archive_version=b"9"), "archive version '9'"),
    "archive_format": (lambda c, m: c.update(archive_format=b"zip"), "archive_format"),
    "older_format": (lambda c, m: (c.pop("archive_format"), c.update(version=b"5.3")), "older torch"),
    "byte_order": (lambda c, m: c.update(byteorder=b"big"), "'big'-endian"),
    "not_json": (lambda c, m: c.update({MODEL: b"{"}), "hostile.pt2"),
    "not_text": (lambda c, m: c.update({MODEL: b"\xff\xfe"}), "hostile.pt2"),
    "nested_json": (lambda c, m: c.update({MODEL: b"[" * 200_000}), "hostile.pt2"),
    "wrong_json": (lambda c, m: c.update({MODEL: b"[1, 2]"}), "hostile.pt2"),
    "two_kinds": (
        lambda c, m: edit(c, MODEL, relu({"as_int": 1, "as_none": True})), "malformed",
    ),
    "wrong_arguments": (
        lambda c, m: edit(c, MODEL, lambda t: nodes(t)[1]["inputs"].clear()), "the program does not run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_file_is_refused_by_name_and_nothing_runs(case, pt2, tmp_path):
    tamper, trouble = TAMPERED[case]
    marker = tmp_path / "ran"
    content = records(pt2)
    tamper(content, marker)
    with pytest.raises(ValueError, match=r"hostile\.pt2: ") as caught:
        load_exported(write(tmp_path / "hostile.pt2", content))
    assert trouble in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not marker.exists()


def test_compressed_records_are_refused_unread(pt2, tmp_path):
    content = {**records(pt2), "data/weights/weight_0": bytes(10_000_000)}
    with pytest.raises(ValueError, match="is compressed"):
        load_exported(write(tmp_path / "bomb.pt2", content, zipfile.ZIP_DEFLATED))


def test_records_that_claim_more_than_the_file_has_are_refused(pt2, tmp_path):
    data = bytearray(write(tmp_path / "plain.pt2", records(pt2)).read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the central directory: sizes at 20 and 24
    data[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    (tmp_path / "claims.pt2").write_bytes(data)
    with pytest.raises(ValueError, match=r"claims\.pt2: its records claim"):
        load_exported(tmp_path / "claims.pt2")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(kept, pt2, tmp_path):
    data = pt2.read_bytes()
    (tmp_path / "short.pt2").write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"short\.pt2: "):
        load_exported(tmp_path / "short.pt2")


def test_a_flipped_bit_in_a_weight_is_noticed(pt2, tmp_path):
    data = bytearray(pt2.read_bytes())
    raw = records(pt2)["data/weights/weight_0"]
    data[data.index(raw)] ^= 1
    (tmp_path / "flipped.pt2").write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.pt2: .*CRC"):
        load_exported(tmp_path / "flipped.pt2")


def test_names_that_climb_out_of_the_archive_write_nothing(pt2, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    content = records(pt2)
    content["../../climbed"] = b"x"
    load_exported(write(folder / "climbing.pt2", content))  # no record is ever extracted
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    with zipfile.ZipFile(folder / "climbing.pt2", "a") as archive:
        archive.writestr("../climbed", b"x")
    with pytest.raises(ValueError, match="2 folders at its root"):
        load_exported(folder / "climbing.pt2")
