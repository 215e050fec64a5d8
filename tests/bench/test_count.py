"""Instructions that are counted in compiled code: of code made up, and of kernels with as much work as is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels.maps.choices import Tiles  # noqa: E402

from adgan_fast.config import SearchConfig  # noqa: E402
from adgan_fast.engine.triton.lift import lift  # noqa: E402
from adgan_fast.engine.triton.search import lifted  # noqa: E402
from bench.gpu import count, counted, model, sass  # noqa: E402
from bench.gpu.candidates import OPTIONS, candidates  # noqa: E402
from bench.gpu.launches import defaults, launches_of, launches_of_thin  # noqa: E402

SASS = """
\t.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 BRA `(.L_x_1) ;
        /*0030*/                   MOV R16, R62 ;
        /*0040*/                   MOV R81, 0x15e0 ;
        /*0050*/                   CALL.REL.NOINC `($slow_root) ;
        /*0060*/                   MOV R43, R75 ;
.L_x_1:
        /*0070*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;
        /*0080*/                   HGMMA.64x32x16.F32.BF16 R4, gdesc[UR4], R4 ;
        /*0090*/              @!P1 FADD R5, R5, R4 ;
        /*00a0*/              @P2  BRA `(.L_x_0) ;
        /*00b0*/                   STG.E.U16 desc[UR4][R2.64], R5 ;
        /*00c0*/                   EXIT ;
.L_x_2:
        /*00d0*/                   BRA `(.L_x_2);
        /*00e0*/                   NOP;
"""
PTX = """
$L__BB0_1:
\tld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
\tmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1}, {%r2}, {%r3}, {%r4};
\twgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%r1}, %rd2, %rd3, 1, 1, 1, 0, 0;
\t@%p1 bra \t$L__BB0_1;
\tst.global.b16 [%rd1], %rs1;
\tret;
"""


def test_instructions_in_a_loop_count_for_each_turn_and_a_slow_way_not_at_all() -> None:
    found = sass.tally(sass.machine_code(SASS), sass.ptx_code(PTX), (10,))
    assert found.kinds == {"other": 1 + 2 * 10 + 1, "global": 10 + 1, "matrix": 20, "float": 10}
    assert found.products == {"tf32": 10 * 16 * 8 * 8, "bf16": 10 * 64 * 32 * 16 / 4}
    assert found.accessed == 32 * (10 * 16 + 2) and found.instructions == 63


def test_a_loop_that_is_not_one_turn_of_the_source_is_refused() -> None:
    code = sass.machine_code(SASS)
    twice = sass.ptx_code(PTX.replace("\t@%p1 bra", "\tld.global.b32 %r1, [%rd1];\n\t@%p1 bra"))
    with pytest.raises(ValueError, match=r"1 loops; .* \[3\] in those of the machine code, \[4\]"):
        sass.tally(code, twice, (10,))
    with pytest.raises(ValueError, match="2 loops"):
        sass.tally(code, sass.ptx_code(PTX), (10, 3))


@pytest.fixture(scope="module")
def program() -> Any:
    return model.program_of("dcgan32x1", SearchConfig())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_matrix_instructions_come_to_the_products_of_the_model(program: Any, precision: str) -> None:
    """Turns, programs, warps and sizes of instructions are right if, and only if, their product is.

    Small tiles may be multiplied by several warps alike: a gradient's of 32 × 32 in bf16, by two.
    """
    for chain in lift(program)[1][1:]:
        calls = model.of_map("", chain.geometry, 2, precision)
        for kernel in ("change", "product", "shared"):
            launches = [it for it in launches_of(chain.geometry, precision, 2, {}) if it.kernel == kernel]
            found = count.count(launches, "sm_90")["products"]
            wanted: dict[str, float] = {}
            for mode, number in ((m, n) for call in calls if call.kernel == kernel for m, n in call.products.items()):
                of, times = ("tf32", 3) if mode == "tf32x3" else (mode, 1)
                wanted[of] = wanted.get(of, 0) + times * number
            if (kernel, precision, chain.geometry.in_positions) == ("change", "bf16", 64):
                assert found == {
                    "bf16": wanted["bf16"] / 5 * 7
                }  # of 3 gradients and 2 products, the last two gradients
            else:
                assert found == wanted, (chain.map.name, kernel)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_so_they_do_for_the_last_layer_and_its_bytes_are_those_of_its_tensors(program: Any, precision: str) -> None:
    (layer,) = (layer for layer in lifted(program, SearchConfig())[0].layers if layer.op == "thin")
    geometry = layer.attrs["geometry"]
    assert layer.inputs[2] is None  # DCGAN's has no bias
    launches = list(launches_of_thin(geometry, False, precision, 2))
    calls = list(model.of_thin("", geometry, 2, precision))
    assert [(it.call, it.step, it.kernel) for it in launches] == [(it.call, it.step, it.kernel) for it in calls]
    found = count.count([it for it in launches if it.kernel == "matmul"], "sm_90")["products"]
    work = 2 * 3 * 256 * 64 * 16  # two steps of three products: 256 positions, 64 to 16 columns
    assert found == {"tf32": work * (3 if precision == "float32" else 1)}
    assert [call.bytes for call in calls[:2]] == [4 * (1024 + 256 * 16), 4 * (256 * 16 + 64 * 16 + 256 * 64)]


def test_the_kept_count_has_the_defaults_and_is_of_these_kernels(program: Any) -> None:
    rows = counted.load(counted.file_of("sm_90", "dcgan32x1"))
    for precision in count.PRECISIONS:
        calls = model.of_search(program, SearchConfig().steps, precision, rows=rows)
        missing = {call.kernel for call in calls if call.kernel in model.COUNTED and call.issued is None}
        assert not missing, "run python -m bench.gpu.count"
    if {row["triton"] for row in rows} != {triton.__version__}:
        pytest.skip(f"the count is of another Triton than {triton.__version__}, whose code may differ")
    chain = lift(program)[1][2]
    tiles = defaults(chain.geometry, "bf16")["product"]
    row = counted.row_for(rows, chain.map.name, "bf16", "product", tiles)
    again = count.count([it for it in launches_of(chain.geometry, "bf16", 5, {}) if it.kernel == "product"], "sm_90")
    assert row is not None and {name: row[name] for name in again} == again


def test_candidates_begin_with_the_default_and_come_once(program: Any) -> None:
    geometry = lift(program)[1][1].geometry
    found = candidates("product", geometry, "bf16")
    assert found[0] == defaults(geometry, "bf16")["product"] and len(set(found)) == len(found)
    assert {tiles.rows for tiles in found} == {64}  # 16 rows are all there are: no other number changes the launch
    assert {tiles.outer for tiles in found} == set(OPTIONS["product"]["outer"])


def test_what_is_counted_is_kept_and_not_made_again(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, few = Tiles(64, 32, 64, 8, 2), Tiles(64, 32, 64, 4, 2)
    names = [
        {"layer": "a", "precision": "bf16", "kernel": "product", "tiles": tiles} for tiles in
        ({"rows": 64, "inner": 32, "outer": 64, "warps": warps, "stages": 2} for warps in (8, 4, 1))
    ]  # fmt: skip
    made = []

    def counting(launches: Any, target: str) -> Any:
        made.append(launches)
        if launches == [1]:
            raise ValueError("not understood\nat all")
        return {"issued": {"input_grad 2": launches[0]}}

    monkeypatch.setattr(count, "count", counting)
    monkeypatch.setattr(count, "orders", lambda *_: zip(names, ([8], [4], [1]), strict=True))
    file = tmp_path / "rows.jsonl"
    first = count.fill(file, program, 5, "sm_90")
    assert first == count.fill(file, program, 5, "sm_90") == counted.load(file) and made == [[8], [4], [1]]
    assert first[2]["failed"] == "ValueError: not understood"
    assert counted.favoured(first, "a", "bf16", "product", 9) == [few, many]
    assert counted.row_for(first, "a", "bf16", "product", Tiles(64, 32, 64, 1, 2)) is None
