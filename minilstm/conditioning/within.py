"""Two ways to bring a condition into a recurrent layer, without a change of its input.

    InitialState    h0 = tanh(W_h c + b_h), and for an LSTM c0 = W_c c + b_c: the net begins with what it was told
    GateBias        W_gate c, added to what the input says to every gate at every step: the same as the condition beside
                    x at every step, with W_gate in place of more columns of W, but multiplied once and not T times

    condition c (B,C)

Both are part of ``Conditioned``: forward gives what a recurrent layer begins with and its row biases, as
``Recurrent`` takes them, and backward takes their gradients.
"""
import numpy as np

from ..cells.activations import d_tanh, tanh
from ..layers.layer import Layer, seed_of, stream
from ..layers.linear import Linear


class InitialState(Layer):
    """For the states of ``net``, all layers and directions.  params: h0.weight (layers*dirs*R,C), h0.bias, c0.weight
    (layers*dirs*H,C), c0.bias"""

    def __init__(self, net, condition_size, seed):
        super().__init__(net.dtype, net.backend)
        self.leading = net.num_layers, len(net.directions)
        rng = stream(seed, "InitialState", condition_size, *self.leading, *net.widths)
        self.branches = {f"{state}0": Linear(condition_size, self.leading[0] * self.leading[1] * width, dtype=net.dtype,
                                             backend=net.backend, seed=seed_of(rng))
                         for state, width in zip(net.cell.states, net.widths)}

    def children(self):
        return self.branches

    def forward(self, condition, cache):
        """-> (dict name -> (layers,dirs,B,width), no row biases), cache"""
        initial, kept = {}, {}
        for name, branch in self.branches.items():
            a, branch_cache = branch.forward(condition, cache=cache)
            s = tanh(a) if name == "h0" else a
            s_split = s.reshape(len(s), *self.leading, s.shape[1] // np.prod(self.leading))
            initial[name] = np.ascontiguousarray(np.moveaxis(s_split, 0, 2))
            kept[name] = branch_cache, s
        return (initial, ()), kept

    def backward(self, kept, d_initial, d_row_biases):
        """d_initial: for each state (layers,dirs,B,width) -> dcondition (B,C); adds to ``grads``."""
        dcondition = 0
        for (name, (branch_cache, s)), d in zip(kept.items(), d_initial):
            ds = np.moveaxis(d, 2, 0).reshape(s.shape)                              # initial = moveaxis(s_split, 0, 2)
            da = ds * d_tanh(s) if name == "h0" else ds                             # s = tanh(a) or a
            dcondition = dcondition + self.branches[name].backward(branch_cache, da)    # a = branch(condition)
        return dcondition


class GateBias(Layer):
    """For the first layer of ``net``, in each direction.  params: l0.weight (G*H,C), l0_reverse.weight"""

    def __init__(self, net, condition_size, seed):
        super().__init__(net.dtype, net.backend)
        rng = stream(seed, "GateBias", condition_size, *net.identity[:3])
        width = len(net.cell.blocks) * net.hidden_size
        self.branches = {f"l0{direction.suffix}": Linear(condition_size, width, bias=False, dtype=net.dtype,
                                                         backend=net.backend, seed=seed_of(rng))
                         for direction in net.directions}

    def children(self):
        return self.branches

    def forward(self, condition, cache):
        """-> (no initial states, for each direction a row bias (B,G*H)), cache"""
        said = [branch.forward(condition, cache=cache) for branch in self.branches.values()]
        return ({}, [bias for bias, _ in said]), [kept for _, kept in said]

    def backward(self, kept, d_initial, d_row_biases):
        """d_row_biases: for each direction (B,G*H) -> dcondition (B,C); adds to ``grads``."""
        return sum(branch.backward(branch_cache, d)                                 # bias = branch(condition)
                   for branch, branch_cache, d in zip(self.branches.values(), kept, d_row_biases))
