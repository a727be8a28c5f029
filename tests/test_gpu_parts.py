"""What is measured on a GPU, where there is none: the small kernels are right and compile, wrong numbers get no time,
and every part of the comparison runs at toy sizes in the simulator beside PyTorch."""
import math
import time

import numpy as np
import pytest

import compiled
from minilstm import device

pytestmark = pytest.mark.usefixtures("benchmark_scripts")


# -------------------------------------------------------------------------------------------------------------- kernels

SMOKE = ("launch", "wide_loads", "special_functions", "shuffles", "blocks_that_wait", "big_shared_memory",
         "tensor_cores", "asynchronous_copies", "waiting_in_vain")


@pytest.mark.parametrize("name", SMOKE)
def test_small_kernels(gpu, name):
    """What the library's kernels stand on works on this GPU."""
    from gpu import smoke
    assert tuple(smoke.CHECKS) == SMOKE
    smoke.CHECKS[name]()


@pytest.mark.compiler
@pytest.mark.parametrize("name", SMOKE)
def test_small_kernels_compile(monkeypatch, name):
    from gpu import smoke
    launched, launch = [], device.launch
    monkeypatch.setattr(device, "launch", lambda kernel, *rest: (launched.append(kernel), launch(kernel, *rest)))
    with device.simulated():
        smoke.CHECKS[name]()
    [kernel] = launched
    compiled.check(kernel, registers=64)


@pytest.mark.long
def test_what_the_checkers_of_memory_watch(capsys):
    """All of it is right, in float32 and TF32; so what they find is theirs."""
    from gpu import watched
    with device.simulated():
        wrong = watched.run()
    device.allow_tf32(False)
    assert wrong == 0, capsys.readouterr().out


def test_a_wrong_small_kernel_is_noticed():
    from gpu import smoke
    with pytest.raises(ArithmeticError, match="largest error"):
        smoke.check([1.0, 2.0], np.array([1.0, 2.1]), 0.01)
    with pytest.raises(ArithmeticError, match="largest error nan"):
        smoke.check([1.0, math.nan], np.array([1.0, 2.0]), 0.01)


def test_the_one_command_knows_the_small_kernels():
    import on_a_gpu
    assert on_a_gpu.CHECKS == SMOKE


# -------------------------------------------------------------------------------------------- the parts, beside PyTorch

@pytest.fixture
def sides():
    pytest.importorskip("torch", reason="comparison with PyTorch: it is not installed (pip install -e '.[peers]')")
    from gpu.sides import Sides
    with device.simulated():
        yield Sides(simulated=True)


@pytest.mark.peers
def test_wrong_numbers_get_no_time(sides):
    """Nor do numbers that are none; and a second run with other bits is told."""
    import torch
    from gpu.sides import judged
    exact = {"y": torch.randn(3, 4, dtype=torch.float64)}
    right = {"y": exact["y"].float()}
    assert judged(right, right, right, exact, False)["result"] == "ok"
    for wrong, tf32, expected in ((1.001, False, "WRONG"), (1.001, True, "ok"), (1.1, True, "WRONG"),
                                  (math.nan, True, "WRONG")):
        found = {"y": right["y"] * wrong}
        assert judged(found, found, right, exact, tf32)["result"] == expected
    assert judged(right, {"y": right["y"] * (1 + 1e-7)}, right, exact, False)["result"] == "other bits"
    assert judged({"y": right["y"] * 1.001}, right, {"y": right["y"] * 1.001}, exact, False)["result"] != "WRONG"


@pytest.mark.peers
def test_times_are_pairs(sides):
    from gpu.sides import Program, compared
    seen = []
    times = sides.times({"ours": Program(lambda n: seen.append("ours")),
                         "theirs": Program(lambda n: time.sleep(0.002), lambda n: seen.append("before"))})
    figures = compared(times)
    assert figures["ratio"] > 1 and figures["host ratio"] > 1 and figures["their ms"] >= 2
    assert len(times["ours"].device) == len(times["theirs"].host) == 1 and seen.count("before") == 1


def run_part(sides, name):
    from gpu.parts import run as run_one
    from gpu.record import Record
    record = Record()
    run_one(name, sides, record)
    assert not record.data["errors"], record.data["errors"]
    assert all(row.get("result", "ok") == "ok" or row["result"].startswith("does not") for row in record.data["rows"])
    return record.data


@pytest.mark.peers
@pytest.mark.parametrize("name, rows", [("facts", 0), ("launches", 4)])
def test_small_parts(sides, name, rows):
    data = run_part(sides, name)
    assert len(data["rows"]) == rows and (name != "facts" or data["facts"]["one stream"] is True)


@pytest.mark.peers
@pytest.mark.long
@pytest.mark.parametrize("name, rows", [
    ("lstm-512-16-256", 16), ("gru-512-16-256", 16), ("ladder", 24), ("steps", 4), ("attention", 18), ("training", 2)])
def test_parts_at_toy_sizes(sides, name, rows):
    """Ours agrees with PyTorch in float64, and every row is there."""
    assert len(run_part(sides, name)["rows"]) == rows


@pytest.mark.peers
@pytest.mark.parametrize("some", [["by_element"], pytest.param(None, marks=pytest.mark.long)])
def test_products_at_toy_sizes(sides, monkeypatch, some):
    """The library's choice and a kernel by its name; or all of them."""
    from minilstm.matmul import gpu as matmul
    monkeypatch.setattr(matmul, "KERNELS", {name: matmul.KERNELS[name] for name in some or matmul.KERNELS})
    rows = run_part(sides, "products")["rows"]
    assert [row["kernel"] for row in rows if row["tf32"]] == ["product", *matmul.KERNELS]
