"""What the machinery has to know of a cell.  Each cell's file ends with one ``Cell`` that says it."""
from typing import Callable, NamedTuple

import numpy as np


class Weights(NamedTuple):
    """The parameters of one layer in one direction; G blocks of H rows each (the LSTM: i, f, g, o).

    Also the shape in which a backward pass returns their gradients.  R is the width of h: H, or less for a cell that
    projects its output."""
    W: np.ndarray       # (G*H, D)  input weights,     PyTorch's weight_ih
    U: np.ndarray       # (G*H, R)  recurrent weights, PyTorch's weight_hh
    b_ih: np.ndarray    # (G*H,)    bias beside W
    b_hh: np.ndarray    # (G*H,)    bias beside U
    own: np.ndarray     # (P, H)    what each unit has for itself (peepholes, gains); P is 0 for most cells
    W_hr: np.ndarray    # (R, H)    projection of the output, PyTorch's weight_hr; (0, H) for a cell without one

    # not parameters, but arrays with a row for each row of the batch
    row_bias: np.ndarray | None = None      # (B, G*H), added to x @ W.T at every step; it has a gradient
    keep: np.ndarray | None = None          # (B, R), by what recurrent dropout multiplies the columns of U

    def parameters(self):
        """All that has a gradient: everything but ``keep``, and ``row_bias`` where there is one."""
        return tuple(p for p in self[:-1] if p is not None)


class Cell(NamedTuple):
    """A recurrent cell: how its parts are called, and its mathematics at three sizes.

    The formulas themselves, one unit and one step, are functions of the cell's own module; ``step`` and ``forward_row``
    below call them, so that no formula of a unit is written twice."""
    name: str
    blocks: tuple[str, ...]     # of W and U, in the order of their rows
    states: tuple[str, ...]     # what is carried from step to step; the first one, h, is the output
    saved: tuple[str, ...]      # what a step keeps of each unit for its backward pass, beside the states

    step: Callable              # one layer, one step, in plain NumPy
    step_backward: Callable
    forward_row: Callable       # one batch row, one step: the loop over units that the compiled backends call, with all
    #                             units of a row or, for most cells, with some of them at a time
    backward_row: Callable

    own: tuple[str, ...] = ()   # the parameters that each unit has for itself
    apart: bool = False         # True: the cell uses x @ W.T + b_ih and h @ U.T + b_hh apart, not their sum alone
    fades: bool = False         # True: its x ends with R factors, by which it multiplies h_prev first (gru_d.py)
    normalises: bool = False    # True: its row functions take sums over the units of a row, and pre-activations without
    #                             biases, which come after these sums; they find them at the end of own

    # of a cell with a second product inside the step: what follows that product, and its reverse
    second_forward_row: Callable | None = None
    second_backward_row: Callable | None = None
    projects: bool = False      # True: it is with W_hr (lstm_projection.py); False: with the last block of U, which has
    #                             to wait for the others (gru_reset_before.py)
