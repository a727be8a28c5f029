"""What a layer of any library has to be for the laws of masking to be asked of it."""
from typing import Protocol

import numpy as np


class Model(Protocol):
    """A layer.  Arrays go by name, in dicts; the names say how they lie (STEPS, ROWS and WEIGHT in ``batches.py``)."""
    dtype: np.dtype
    any_mask: bool          # does it take masks of any pattern, or only padding behind?
    reverse: tuple          # one bool for each direction: does it walk from the end?  () for what does not walk

    def draw(self, rng, B, T):
        """dict of random numbers: x, initial states (h0, c0), gradients of the outputs (dy or dpooled, dh_n, dc_n)."""

    def run(self, batch, mask=None):
        """-> dict: outputs (y or pooled), final states (h_n, c_n), and, if it has a backward pass, the gradients of x,
        the initial states (dx, dh0, dc0) and the weights ("d " + name).  Raises Cannot where it takes no such mask."""

    def halves(self):
        """For each direction a model that walks forward with its weights.  Raises Cannot where there is none."""


class Cannot(Exception):
    """Why a model cannot be asked."""
