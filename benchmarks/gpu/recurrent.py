"""LSTM and GRU beside PyTorch's, that is cuDNN's: one layer, D = H, the input's products included.

    forward             outputs and final states, nothing kept            PyTorch under no_grad
    training forward    the same, and what a backward pass needs
    forward + backward  and the gradients of x, of every weight and bias, from a random gradient of y

dense: all rows have T steps; ragged: from T/4 to T.  PyTorch then works on a PackedSequence and we with a mask, both
made before the clock starts; ``ratio with packing`` is that of a user who has padded batches and lengths.
"""
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import minilstm
from gpu.sides import FRESH, Program, Sides, compared, judged, tf32_mode
from minilstm import device
from minilstm.recurrence import gpu as recurrence

WORKS = ("forward", "training forward", "forward + backward")
LAYOUTS = ("dense", "ragged")
RUNGS = (("steps", False), ("rows", False), ("blocks", False), ("blocks", True))        # a kernel, with TF32?


class Inputs(NamedTuple):
    """One set of fresh inputs.  PyTorch's are time first, as cuDNN likes them best."""
    x: object                           # (B,T,D), ours
    dy: object                          # (B,T,H)
    x_theirs: torch.Tensor              # (T,B,D)
    dy_theirs: torch.Tensor             # (T,B,H)
    packed: object                      # x_theirs as a PackedSequence, or None
    dy_packed: object                   # dy_theirs in its order


class Case:
    """Both layers with the same weights, and what goes through them."""

    def __init__(self, sides: Sides, kind, shape, layout):
        """shape: (T, B, H)"""
        self.sides, self.shape = sides, shape
        T, B, H = shape
        self.net = getattr(torch.nn, kind)(H, H).to(sides.where)
        self.ours = getattr(minilstm, kind)(H, H, backend="gpu")
        self.ours.load_state_dict({name: p.detach().cpu().numpy() for name, p in self.net.named_parameters()})
        self.lengths = self.mask = None
        if layout == "ragged":
            self.lengths = np.random.default_rng(0).permutation(np.linspace(max(T // 4, 1), T, B).round().astype(int))
            self.mask = device.to_device(np.arange(T) < self.lengths[:, None])
        self.inputs = [self.drawn() for _ in range(FRESH)]

    def drawn(self):
        T, B, H = self.shape
        x, dy = self.sides.random(T, B, H).requires_grad_(), self.sides.random(T, B, H)
        packed = dy_packed = None
        if self.lengths is not None:
            packed = self.pack(x.detach())
            packed = PackedSequence(packed.data.requires_grad_(), *packed[1:])
            dy_packed = self.pack(dy).data
        return Inputs(*(self.sides.ours(a.transpose(0, 1)) for a in (x, dy)), x, dy, packed, dy_packed)

    def pack(self, x):
        return pack_padded_sequence(x, torch.from_numpy(self.lengths), enforce_sorted=False)

    # ------------------------------------------------------------------------------------------------------------ ours

    def our_forward(self, n, **lengths):
        return self.ours.forward(self.inputs[n % FRESH].x, cache=False, **lengths or {"mask": self.mask})[0].y

    def our_training_forward(self, n, **lengths):
        return self.ours.forward(self.inputs[n % FRESH].x, **lengths or {"mask": self.mask})

    def our_both(self, n, **lengths):
        self.ours.zero_grads()
        out, cache = self.our_training_forward(n, **lengths)
        return out.y, self.ours.backward(cache, self.inputs[n % FRESH].dy).dx

    # --------------------------------------------------------------------------------------------------------- PyTorch

    def clear(self, n):
        self.net.zero_grad(set_to_none=True)
        for tensor in (self.inputs[n % FRESH].x_theirs, getattr(self.inputs[n % FRESH].packed, "data", None)):
            if tensor is not None:
                tensor.grad = None

    def their_training_forward(self, n):
        given = self.inputs[n % FRESH]
        y, _ = self.net(given.x_theirs if given.packed is None else given.packed)
        return y if given.packed is None else y.data

    def their_forward(self, n):
        with torch.no_grad():
            return self.their_training_forward(n)

    def their_both(self, n):
        given = self.inputs[n % FRESH]
        self.their_training_forward(n).backward(given.dy_theirs if given.packed is None else given.dy_packed)

    def their_padded_forward(self, n):
        return self.padded(self.net, self.inputs[n % FRESH].x_theirs)

    def their_padded_inference(self, n):
        with torch.no_grad():
            return self.their_padded_forward(n)

    def their_padded_both(self, n):
        self.their_padded_forward(n).backward(self.inputs[n % FRESH].dy_theirs)

    def padded(self, net, x):
        """y (T,B,H) of a net of PyTorch's, packed and unpacked where rows are ragged."""
        if self.lengths is None:
            return net(x)[0]
        return pad_packed_sequence(net(self.pack(x))[0], total_length=len(x))[0]

    # ------------------------------------------------------------------------------------------------------- judgement

    def our_results(self):
        """dict name -> tensor: y without and with a cache, dx and the gradients of the weights, from inputs 0."""
        self.sides.poison()
        inference = self.sides.theirs(self.our_forward(0))
        self.sides.poison()
        y, dx = self.our_both(0)
        return {"y without cache": inference, "y": self.sides.theirs(y), "dx": self.sides.theirs(dx),
                **{name: self.sides.theirs(d) for name, d in self.ours.grads.items()}}

    def their_results(self, net):
        """The same of a net of PyTorch's, in its precision."""
        dtype = next(net.parameters()).dtype
        x = self.inputs[0].x_theirs.detach().to(dtype).requires_grad_()
        net.zero_grad(set_to_none=True)
        y = self.padded(net, x)
        y.backward(self.inputs[0].dy_theirs.to(dtype))
        y = y.detach().transpose(0, 1)
        return {"y without cache": y, "y": y, "dx": x.grad.transpose(0, 1),
                **{name: p.grad.clone() for name, p in net.named_parameters()}}

    def exact(self):
        return self.their_results(deepcopy(self.net).double())

    def walk(self):
        """The name of the recurrent kernels that the library takes."""
        T, B, H = self.shape
        return recurrence.walk_for(self.ours.cell, B, T, H).__name__.rpartition("gpu_")[2]

    def judgement(self, exact, tf32):
        ours, again = self.our_results(), self.our_results()
        return judged(ours, again, self.their_results(self.net), exact, tf32)

    def programs(self, work):
        ours, theirs, with_packing = {
            "forward": (self.our_forward, self.their_forward, self.their_padded_inference),
            "training forward": (self.our_training_forward, self.their_training_forward, self.their_padded_forward),
            "forward + backward": (self.our_both, self.their_both, self.their_padded_both)}[work]
        found = {"ours": Program(ours), "theirs": Program(theirs, self.clear)}
        if self.lengths is not None:
            found |= {"ours, lengths": Program(lambda n: ours(n, lengths=self.lengths)),
                      "theirs, packing": Program(with_packing, self.clear)}
        return found


def measure(sides, record, kind, shape):
    """One kind of layer at one shape, in both layouts and both modes."""
    for layout in LAYOUTS:
        if layout == "ragged" and shape[1] == 1:
            continue                                                    # one row has nothing to be ragged with
        with record.attempt(f"{kind} {shape} {layout}"):
            case, exact = Case(sides, kind, shape, layout), None
            for tf32 in (False, True):
                with record.attempt(f"{kind} {shape} {layout}, TF32 {tf32}"), tf32_mode(tf32):
                    case.our_results()                                  # compiles, while others may measure
                    with sides.alone():
                        exact = exact or case.exact()
                        compare(sides, record, case, exact, tf32, {"kind": kind, "shape": shape, "layout": layout})


def compare(sides, record, case, exact, tf32, labels, works=WORKS):
    """Judge, then time what is right."""
    labels = labels | {"tf32": tf32}
    judgement = case.judgement(exact, tf32) | {"walk": case.walk()}
    record.row(**labels, **judgement)
    for work in works:
        row = labels | {"work": work, "result": judgement["result"]}
        if row["result"] != "WRONG":
            times = sides.times(case.programs(work))
            row |= compared(times)
            if "theirs, packing" in times:
                row["ratio with packing"] = compared(times, "ours, lengths", "theirs, packing")["ratio"]
        record.row(**row)


# ---------------------------------------------------------------------------------------------------------- the ladder

def ladder(sides, record, shapes):
    """The recurrent kernels one by one, each forced, at shapes (T, B, H)."""
    for kind in ("LSTM", "GRU"):
        for shape in shapes:
            case, exact = Case(sides, kind, shape, "dense"), None
            for rung, tf32 in RUNGS:
                labels = {"kind": kind, "shape": shape, "rung": rung}
                with record.attempt(f"{labels}, TF32 {tf32}"), tf32_mode(tf32), recurrence.using(rung):
                    try:
                        case.our_results()
                    except ValueError as refusal:
                        record.row(**labels, tf32=tf32, result=f"does not fit: {refusal}")
                        continue
                    with sides.alone():
                        exact = exact or case.exact()
                        compare(sides, record, case, exact, tf32, labels, ("forward", "forward + backward"))


def steps(sides, record, shapes, long, short):
    """Microseconds a step: the difference between a long and a short sequence, so that what is done once drops out."""
    for B, H in shapes:
        for tf32 in (False, True):
            with record.attempt(f"a step, {B} rows, {H} units"), tf32_mode(tf32), recurrence.using("blocks"):
                cases = {T: Case(sides, "LSTM", (T, B, H), "dense") for T in (long, short)}
                for case in cases.values():
                    case.our_results()
                with sides.alone():
                    for work in ("forward", "forward + backward"):
                        ms = {T: compared(sides.times(case.programs(work))) for T, case in cases.items()}
                        us = {whose: 1e3 * (ms[long][key] - ms[short][key]) / (long - short)
                              for whose, key in (("us a step", "ms"), ("their us a step", "their ms"))}
                        record.row(what="step of time", rows=B, units=H, tf32=tf32, work=work, **us)
