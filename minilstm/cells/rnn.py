"""The simple recurrent net: the old state and the input, squashed together.

One step takes the input x and the state h_prev to the new state h:

    a = x @ W.T + b_ih + h_prev @ U.T + b_hh
    h = tanh(a)                                     or relu(a) = a where a > 0, 0 elsewhere

    B  batch      D  input features      H  hidden units
    x (B,D)      h, a (B,H)      W (H,D)      U (H,H)      b_ih, b_hh (H,)

Beside the LSTM: no gate and no memory line.  On its way back through a step a gradient is always multiplied by U and by
the derivative of the squashing, and so it fades or explodes over many steps.

Source: J. Elman, Finding Structure in Time, Cognitive Science 14(2), 1990; with relu Q. Le, N. Jaitly and G. Hinton,
A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, 2015.
"""
from typing import NamedTuple

import numpy as np

from .activations import d_relu, d_tanh, formula, relu, tanh
from .cell import Cell
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward_tanh(a):
    h = tanh(a)
    return h


@formula
def backward_tanh(h, dh):
    da = dh * d_tanh(h)                         # h = tanh(a)
    return da


@formula
def forward_relu(a):
    h = relu(a)
    return h


@formula
def backward_relu(h, dh):
    da = dh * d_relu(h)                         # h = relu(a)
    return da


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H)
    h: np.ndarray           # (B,H)


def cell_with(name, forward, backward):
    """The Cell with one of the two pairs of formulas."""
    def step(weights, x, h_prev):
        """One step of a whole layer.  x (B,D), h_prev (B,H) -> (h,), Step."""
        a_x, a_h = products(weights, x, h_prev)
        h = forward(a_x + a_h)
        return (h,), Step(x, h_prev, h)

    def step_backward(weights, saved, dh):
        """The reverse of ``step``.  dh (B,H) -> dx (B,D), (dh_prev,), Weights of gradients."""
        x, h_prev, h = saved
        da = backward(h, dh)                                                    # h = forward(a_x + a_h)
        dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)  # a_x, a_h = products(...)
        return dx, (dh_prev,), d_weights

    @formula
    def forward_row(a, own, before, after, saved):
        """a (1,H) pre-activation; before, after (1,H): h at the two ends of the step.  Fills ``after``; the backward
        pass needs nothing else."""
        for j in range(a.shape[1]):
            after[0, j] = forward(a[0, j])

    @formula
    def backward_row(saved, own, before, after, d_state, da, d_own):
        """The reverse of ``forward_row``.  Fills da (1,H).  d_state (1,H): on entry dh of ``after``, on return 0, since
        dh of ``before`` all goes through the product with U, which the caller adds."""
        for j in range(da.shape[1]):
            da[0, j] = backward(after[0, j], d_state[0, j])
            d_state[0, j] = 0

    return Cell(name=name, blocks=("a",), states=("h",), saved=(), step=step, step_backward=step_backward,
                forward_row=forward_row, backward_row=backward_row)


RNN_TANH_CELL = cell_with("RNN, tanh", forward_tanh, backward_tanh)
RNN_RELU_CELL = cell_with("RNN, relu", forward_relu, backward_relu)
