"""The LSTM whose covariate has a candidate and an input gate of its own: its equations, gradients and zeros."""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, random_batch, run, same_bits
from minilstm.cells.activations import sigmoid
from minilstm.checks import check_gradients
from minilstm.conditioning.covariate_lstm import CovariateLSTM


def random_net(rng, D, C, H, **options):
    net = CovariateLSTM(D, C, H, **options)
    for name, p in net.params.items():
        net.params[name] = (0.6 * rng.normal(size=p.shape)).astype(p.dtype)
    return net


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_it_computes_its_equations(backend):
    """Written out once more, for one sequence, with the covariate's candidate from the covariate alone."""
    rng = np.random.default_rng(0)
    D, C, H = 2, 3, 4
    net = random_net(rng, D, C, H, dtype="float64", backend=backend)
    p, both = net.params, rng.normal(size=(5, D + C))
    out, _ = net.forward(both[None])
    h, c = np.zeros(H), np.zeros(H)
    bias = p["bias_ih_l0"] + p["bias_hh_l0"]
    for t in range(5):
        a = p["weight_ih_l0"] @ both[t] + p["weight_hh_l0"] @ h + bias[:5 * H]
        i, f, o, k = (sigmoid(a[n * H:(n + 1) * H]) for n in (0, 1, 3, 4))
        g, s = np.tanh(a[2 * H:3 * H]), np.tanh(p["weight_covariate_l0"] @ both[t, D:] + bias[5 * H:])
        c = f * c + i * g + k * s
        h = o * np.tanh(c)
        assert_close(out.y[0, t], h, "same formulas, float64")
    assert_close(out.c_n[0, 0, 0], c, "same formulas, float64")


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"reverse": True, "zoneout_c": 0.3}])
def test_gradients(options):
    rng = np.random.default_rng(1)
    net = random_net(rng, 2, 3, 4, **options)
    batch = random_batch(rng, net, B=3, T=5)
    del batch["dy"], batch["dh_n"], batch["dc_n"]
    mask = np.array([[1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]], bool)
    report = check_gradients(net, mask=mask, **batch)
    assert report.ok and all(row.largest > 0 for row in report.rows), report


@pytest.mark.parametrize("sizes", [(2, 3, 4), (3, 3, 3), (1, 5, 70)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cpu_equals_reference(sizes, dtype):
    rng = np.random.default_rng(2)
    for B, T in ((5, 4), (9, 9)):
        options = {"bidirectional": True, "dtype": dtype}
        nets = [random_net(np.random.default_rng(B), *sizes, backend=backend, **options)
                for backend in ("reference", "cpu")]
        batch = random_batch(rng, nets[0], B, T)
        for mask in masks(rng, B, T).values():
            expected, found = (run(net, batch, mask=mask) for net in nets)
            for name in expected:
                assert_close(found[name], expected[name], f"same formulas, {dtype}", name)


def test_with_its_gate_shut_it_is_an_lstm_that_reads_both():
    rng = np.random.default_rng(3)
    D, C, H = 2, 3, 4
    net, lstm = random_net(rng, D, C, H, dtype="float64"), minilstm.LSTM(D + C, H, dtype="float64")
    bias = net.params["bias_ih_l0"].copy()
    bias[4 * H:5 * H] = -1e3
    net.params["bias_ih_l0"] = bias
    lstm.load_state_dict({name: net.params[name][:4 * H].copy() for name in lstm.params})
    x = rng.normal(size=(3, 6, D + C))
    assert_close(net.forward(x)[0].y, lstm.forward(x)[0].y, "same formulas, float64")


def test_there_is_no_parameter_where_the_candidate_does_not_hear():
    """Else training would move what has to stay zero."""
    net = CovariateLSTM(2, 3, 4)
    assert {name: p.shape for name, p in net.params.items()} == {
        "weight_ih_l0": (20, 5), "weight_hh_l0": (20, 4), "bias_ih_l0": (24,), "bias_hh_l0": (24,),
        "weight_covariate_l0": (4, 3)}
    assert all(same_bits(p, CovariateLSTM(2, 3, 4).params[name]) for name, p in net.params.items())
    assert net.params["bias_ih_l0"].tolist() == [0] * 4 + [1] * 4 + [0] * 16
