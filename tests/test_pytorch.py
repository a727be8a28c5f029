"""The layers give PyTorch's outputs, states and gradients: committed ones, and live ones where torch is installed."""
from pathlib import Path

import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, run
from torch_layers import CASES, make_inputs, options_of, run_torch

FIXTURE = Path(__file__).parent / "fixtures" / "pytorch.npz"


def committed(name):
    """(weights, batch, expected) of one case in the fixture."""
    with np.load(FIXTURE) as file:
        return [{key.split("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/{kind}/")}
                for kind in ("weights", "batch", "expected")]


def compare(case, weights, batch, expected, dtype, backend):
    layer_class, of_kind = KINDS[case["kind"]]
    net = layer_class(case["D"], case["H"], dtype=dtype, backend=backend, **of_kind, **options_of(case))
    net.load_state_dict({name: w.astype(dtype) for name, w in weights.items()})
    lengths = np.array(case["lengths"]) if "lengths" in case else None
    found = run(net, {name: a.astype(dtype) for name, a in batch.items()}, lengths=lengths)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == dtype, name
        assert_close(found[name], array, f"pytorch, {dtype}", name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
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
