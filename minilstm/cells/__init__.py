"""The mathematics: one file per cell, each with its formulas forward and backward, written once."""
from .cell import Cell, Weights
from .lstm import LSTM

__all__ = ["Cell", "LSTM", "Weights"]
