"""torch.nn.LSTM on given weights and inputs, in this project's layout: for the fixtures, and for live comparison."""
import numpy as np

from helpers import random_batch, random_lstm

CASES = {
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


def options_of(case):
    return {"num_layers": case.get("num_layers", 1), "bidirectional": case.get("bidirectional", False)}


def make_inputs(case, seed):
    """-> (weights, batch), float64, all random; a zero initial state only where the case says so."""
    rng = np.random.default_rng(seed)
    net = random_lstm(rng, case["D"], case["H"], dtype="float64", **options_of(case))
    batch = random_batch(rng, net, case["B"], case["T"])
    if case.get("zero_state"):
        batch["h0"][:] = 0
        batch["c0"][:] = 0
    return net.state_dict(), batch


def run_torch(case, weights, batch):
    """The same dict as helpers.run, computed by PyTorch in float64."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer = torch.nn.LSTM(case["D"], case["H"], batch_first=True, dtype=torch.float64, **options_of(case))
    layer.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
    tensors = {name: torch.tensor(a, requires_grad=not name.startswith("d")) for name, a in batch.items()}
    ours = batch["h0"].shape                                        # (layers,dirs,B,H); PyTorch's is (layers*dirs,B,H)
    theirs = (-1, *ours[2:])
    states = tensors["h0"].reshape(theirs), tensors["c0"].reshape(theirs)
    if "lengths" in case:
        packed = pack_padded_sequence(tensors["x"], case["lengths"], batch_first=True, enforce_sorted=False)
        y, (h_n, c_n) = layer(packed, states)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=case["T"])
    else:
        y, (h_n, c_n) = layer(tensors["x"], states)
    h_n, c_n = h_n.reshape(ours), c_n.reshape(ours)
    torch.autograd.backward([y, h_n, c_n], [tensors["dy"], tensors["dh_n"], tensors["dc_n"]])
    found = {"y": y, "h_n": h_n, "c_n": c_n}
    found |= {"d" + name: tensors[name].grad for name in ("x", "h0", "c0")}
    found |= {"d " + name: p.grad for name, p in layer.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in found.items()}
