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


class Cell(NamedTuple):
    """A recurrent cell: how its parts are called, and its mathematics at three sizes.

    The formulas themselves, one unit and one step, are functions of the cell's own module; ``step`` and ``forward_row``
    below call them, so that no formula is written twice."""
    name: str
    gates: tuple[str, ...]      # the pre-activation blocks, in the order of the rows of W and U
    states: tuple[str, ...]     # what is carried from step to step; the first one, h, is the output

    step: Callable              # one layer, one step, in plain NumPy
    step_backward: Callable
    forward_row: Callable       # one batch row, one step: the loop over units that the compiled backends call
    backward_row: Callable
