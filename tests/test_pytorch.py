"""The layers give PyTorch's outputs, states and gradients: committed ones, and live ones where torch is installed."""
from pathlib import Path

import numpy as np
import pytest

import minilstm
from helpers import KINDS, USUAL, assert_close, long_unless, random_batch, random_layer, run
from torch_layers import CASES, make_inputs, options_of, run_torch

FIXTURE = Path(__file__).parent / "fixtures" / "pytorch.npz"


def committed(name):
    """(weights, batch, expected) of one case in the fixture."""
    with np.load(FIXTURE) as file:
        return [{key.split("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/{kind}/")}
                for kind in ("weights", "batch", "expected")]


def compare(case, weights, batch, expected, dtype, backend):
    layer_class, of_kind = KINDS[case["kind"]]
    net = layer_class(case["D"], case["H"], dtype=dtype, backend=backend, **of_kind | options_of(case))
    net.load_state_dict({name: w.astype(dtype) for name, w in weights.items()})
    lengths = np.array(case["lengths"]) if "lengths" in case else None
    found = run(net, {name: a.astype(dtype) for name, a in batch.items()}, lengths=lengths)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == dtype, name
        assert_close(found[name], array, f"pytorch, {dtype}", name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name, dtype", [long_unless(dtype == "float64" or case["kind"] in USUAL, name, dtype)
                                         for name, case in CASES.items() for dtype in ("float64", "float32")])
def test_committed_outputs_and_gradients(name, dtype, backend):
    compare(CASES[name], *committed(name), dtype, backend)


@pytest.mark.peers
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_live_outputs_and_gradients(name, backend):
    pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    weights, batch = make_inputs(CASES[name], seed=np.random.SeedSequence().entropy % 2**32)
    compare(CASES[name], weights, batch, run_torch(CASES[name], weights, batch), "float64", backend)


@pytest.mark.peers
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", ["LSTM, layer norm", "GRU, layer norm"])
def test_layer_norm_is_what_pytorchs_parts_make(kind, backend):
    """PyTorch has no layer-normalised LSTM or GRU; here they are in its own operations, with its gradients."""
    torch = pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    from torch.nn.functional import layer_norm
    rng = np.random.default_rng()
    B, T, D, H = 3, 4, 2, 5
    net = random_layer(rng, kind, D, H, dtype="float64", backend=backend)
    batch = random_batch(rng, net, B, T)
    found = run(net, batch)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in (batch | net.params).items()}
    W, U, b_ih, b_hh, own = (tensors[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "own"))
    G = len(net.cell.blocks)
    h, c = tensors["h0"][0, 0], tensors["c0"][0, 0] if "c0" in tensors else None
    steps = []
    for t in range(T):
        a_x = layer_norm(tensors["x"][:, t] @ W.T, (G * H,), own[:G].reshape(-1), b_ih)
        a_h = layer_norm(h @ U.T, (G * H,), own[G:2 * G].reshape(-1), b_hh)
        if G == 4:
            i, f, g, o = (a_x + a_h).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(layer_norm(c, (H,), own[8], own[9]))
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = a_x.chunk(3, 1), a_h.chunk(3, 1)
            z = torch.sigmoid(x_z + h_z)
            h = (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h
        steps.append(h)
    expected = {"y": torch.stack(steps, 1), "h_n": h[None, None]} | ({"c_n": c[None, None]} if G == 4 else {})
    torch.autograd.backward(list(expected.values()), [tensors["d" + name] for name in expected])
    expected |= {"d" + name: tensors[name].grad for name in ("x", "h0", "c0") if name in tensors}
    expected |= {"d " + name: tensors[name].grad for name in net.params}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(found[name], tensor.detach().numpy(), "pytorch, float64", name)


@pytest.mark.peers
def test_adam_is_pytorchs_step_for_step():
    """100 steps in float64 from the same gradients."""
    torch = pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    rng = np.random.default_rng(0)
    net = minilstm.Linear(3, 2, dtype="float64")
    optimizer = minilstm.Adam(0.05)
    tensors = {name: torch.tensor(p.copy(), requires_grad=True) for name, p in net.params.items()}
    theirs = torch.optim.Adam(tensors.values(), lr=0.05)
    for _ in range(100):
        net.zero_grads()
        for name, tensor in tensors.items():
            net.grads[name] += rng.normal(size=tensor.shape)
            tensor.grad = torch.tensor(net.grads[name].copy())
        optimizer.step(net)
        theirs.step()
        for name, tensor in tensors.items():
            assert_close(net.params[name], tensor.detach().numpy(), "pytorch, float64", name)
