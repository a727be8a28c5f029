"""What the benchmarks time is right: the rungs of the ladder, and every program that stands beside ours."""
import sys
from pathlib import Path

import numpy as np
import pytest

import minilstm
from helpers import assert_close, random_lstm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """Its scripts import each other by name; and they set numbers of threads."""
    before = minilstm.get_num_threads()
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    minilstm.set_num_threads(before)
    for name in ("measure", "padding", "peers", "training_loop", "ladder", "ladder.rungs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("B, T, D, H", [(8, 3, 4, 8), (7, 3, 5, 6), (1, 2, 1, 1)])
@pytest.mark.long
def test_every_rung_computes_the_layer(benchmarks, B, T, D, H):
    from ladder import rungs
    rng = np.random.default_rng(0)
    net = random_lstm(rng, D, H, backend="reference")
    W, U, b_ih, b_hh = net.params.values()
    x = rng.standard_normal((B, T, D), dtype="float32")
    expected = net.forward(x, cache=False)[0].y
    for rung in (rungs.pure_python, rungs.numpy_per_step, rungs.one_projection, rungs.compiled_gates,
                 rungs.whole_sequences):
        assert_close(rung(x, W, U, b_ih + b_hh), expected, "same formulas, float32", rung.__name__)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_padded_batches_are_right_before_they_are_timed(benchmarks, kind):
    """And about half of their steps are real; and a wrong bit ends the benchmark."""
    import padding
    steps, shares = padding.programs(kind, (16, 9, 5, 6))
    assert steps.keys() == shares.keys() == {"full", "ragged", "holes"}
    assert shares["full"] == 1 and 0.4 < shares["ragged"] < 0.65 and 0.3 < shares["holes"] < 0.7
    for step in steps.values():
        step()
    with pytest.raises(SystemExit, match="row 0: other bits in the batch than alone"):
        padding.check(Hears(5), np.ones((2, 4, 5), "float32"), np.array([[True] * 3 + [False], [True] * 4]))


class Hears(minilstm.Layer):
    """A layer that does not skip masked steps."""

    def __init__(self, features):
        super().__init__("float32", "cpu")
        self.net = minilstm.LSTM(features, 3, reverse=True)

    def forward(self, x, mask=None, cache=True):
        return self.net.forward(x, cache=cache)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_peers_agree_before_they_are_timed(benchmarks, kind):
    """And a wrong number ends the benchmark."""
    pytest.importorskip("torch", reason="comparison with PyTorch: it is not installed (pip install -e '.[peers]')")
    import peers
    case = peers.Case(kind, (3, 8, 5, 6))
    programs = case.programs(threads=1)
    assert {("forward", "PyTorch"), ("training", "PyTorch"), ("ragged", "PyTorch")} < programs.keys()
    assert peers.online_programs(kind, (1, 4, 5, 6)).keys() == {("online", "minilstm"), ("online", "PyTorch")}
    with pytest.raises(SystemExit, match="y: relative error"):
        peers.check("y", np.array([1.0, 1.001]), np.array([1.0, 1.0]))
    with pytest.raises(SystemExit, match="y: relative error nan"):
        peers.check("y", np.array([1.0, np.nan]), np.array([1.0, 1.0]))


def test_the_loop_around_a_model_is_timed_with_its_bar(benchmarks, capsys):
    """The bar is drawn into what it takes for a terminal, not here; an epoch is the model's time and the loop's."""
    import training_loop
    found = training_loop.measure((3, 4, 2, 5), repeats=1)
    assert capsys.readouterr() == ("", "") and all(value > 0 for value in found.values())
    assert 0 < found["share"] < 1 and max(found["loop"], found["model"]) < found["fit"]
