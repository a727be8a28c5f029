"""What the machinery has to know of a cell.  Each cell's file ends with one ``Cell`` that says it."""
from typing import Callable, NamedTuple

import numpy as np


class Weights(NamedTuple):
    """The parameters of one layer in one direction; G blocks of H rows each (the LSTM: i, f, g, o).

    Also the shape in which a backward pass returns their gradients."""
    W: np.ndarray       # (G*H, D)  input weights,     PyTorch's weight_ih
    U: np.ndarray       # (G*H, H)  recurrent weights, PyTorch's weight_hh
    b_ih: np.ndarray    # (G*H,)    bias beside W
    b_hh: np.ndarray    # (G*H,)    bias beside U
    own: np.ndarray     # (P, H)    what each unit has for itself (peepholes); P is 0 for most cells


class Cell(NamedTuple):
    """A recurrent cell: how its parts are called, and its mathematics at three sizes.

    The formulas themselves, one unit and one step, are functions of the cell's own module; ``step`` and ``forward_row``
    below call them, so that no formula of a unit is written twice."""
    name: str
    blocks: tuple[str, ...]     # of W and U, in the order of their rows
    states: tuple[str, ...]     # what is carried from step to step; the first one, h, is the output
    saved: tuple[str, ...]      # what a step keeps of each unit for its backward pass; at least as many as blocks

    step: Callable              # one layer, one step, in plain NumPy
    step_backward: Callable
    forward_row: Callable       # one batch row, one step: the loop over units that the compiled backends call
    backward_row: Callable

    own: tuple[str, ...] = ()   # the parameters that each unit has for itself
    apart: bool = False         # True: the cell uses x @ W.T + b_ih and h @ U.T + b_hh apart, not their sum alone

    second_forward_row: Callable | None = None      # of a cell whose last block of U has to wait for the others: what
    second_backward_row: Callable | None = None     # follows that product, and its reverse (gru_reset_before.py)
