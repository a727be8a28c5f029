"""PyTorch's layers on given weights and inputs, in this project's layout: for the fixtures, and for live comparison."""
import numpy as np

from helpers import random_batch, random_layer, states_of

SIZES = {
    "full": dict(B=3, T=5, D=2, H=4),
    "ragged": dict(B=4, T=6, D=3, H=5, lengths=[6, 2, 1, 4]),
    "both directions": dict(B=3, T=4, D=2, H=3, bidirectional=True),
    "both directions, ragged": dict(B=4, T=5, D=3, H=2, lengths=[3, 5, 1, 4], bidirectional=True),
    "zero initial state": dict(B=2, T=7, D=3, H=4, zero_state=True),
    "two layers, ragged": dict(B=3, T=4, D=2, H=3, lengths=[2, 4, 3], num_layers=2, bidirectional=True),
    "T=1": dict(B=3, T=1, D=4, H=3),
    "H=1": dict(B=2, T=6, D=3, H=1),
    "B=1, D=1": dict(B=1, T=5, D=1, H=2),
}


CASES = {f"{kind}, {name}": dict(case, kind=kind)
         for kind in ("LSTM", "GRU", "RNN, tanh", "RNN, relu") for name, case in SIZES.items()}
CASES |= {f"LSTM, projection, {name}": dict(case, kind="LSTM, projection", proj_size=2)
          for name, case in SIZES.items() if case["H"] > 2}


def options_of(case):
    """What our layer and PyTorch's call by the same name."""
    return {name: case[name] for name in ("num_layers", "bidirectional", "proj_size") if name in case}


def make_inputs(case, seed):
    """-> (weights, batch), float64, all random; a zero initial state only where the case says so."""
    rng = np.random.default_rng(seed)
    options = {name: value for name, value in options_of(case).items() if name != "proj_size"}
    net = random_layer(rng, case["kind"], case["D"], case["H"], dtype="float64", **options)
    batch = random_batch(rng, net, case["B"], case["T"])
    if case.get("zero_state"):
        for state in states_of(batch).values():
            state[:] = 0
    return net.state_dict(), batch


def run_torch(case, weights, batch):
    """The same dict as helpers.run, computed by PyTorch in float64."""
    import torch

    kind, _, variant = case["kind"].partition(", ")
    options = options_of(case) | ({"nonlinearity": variant} if kind == "RNN" else {})
    module = getattr(torch.nn, kind)(case["D"], case["H"], batch_first=True, dtype=torch.float64, **options)
    module.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
    return run_module(module, batch, case.get("lengths"))


def run_module(module, batch, lengths=None):
    """The same dict as helpers.run, computed by one of PyTorch's recurrent modules, packed if there are lengths."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    tensors = {name: torch.tensor(a, requires_grad=not name.startswith("d")) for name, a in batch.items()}
    initial = tuple(tensors[name].flatten(0, 1) for name in states_of(batch))   # (layers,dirs,B,H) -> (layers*dirs,B,H)
    initial = initial if len(initial) > 1 else initial[0]
    if lengths is None:
        y, final = module(tensors["x"], initial)
    else:
        packed = pack_padded_sequence(tensors["x"], lengths, batch_first=True, enforce_sorted=False)
        y, final = module(packed, initial)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=batch["x"].shape[1])
    final = final if isinstance(final, tuple) else (final,)
    found = {"y": y} | {f"{name[0]}_n": s.reshape(tensors[name].shape) for name, s in zip(states_of(batch), final)}
    module.zero_grad()
    torch.autograd.backward(list(found.values()), [tensors["d" + name] for name in found])
    found |= {"d" + name: tensors[name].grad for name in ("x", *states_of(batch))}
    found |= {"d " + name: p.grad for name, p in module.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in found.items()}
