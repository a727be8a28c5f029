"""From raw data to a batch: x (B,T,D), and what says which steps are real and which values were measured.

    padding.py      sequences of different lengths -> x and its mask, and back
    windows.py      one long series -> many short ones, each with its target
    features.py     more columns for x; time and batch in the right order
    batches.py      which sequences go together
    missing.py      values that were not measured

    B batch      T time steps      D input features      mask (B,T) bool, True = a real step
"""
from .batches import batches, padding_share
from .features import add_features, swap_time_batch
from .missing import add_indicators, fill_forward, fill_mean, fill_zero, observed_mean, observed_of, time_since_seen
from .padding import Padded, lengths_to_mask, mask_to_lengths, pad, truncate, unpad
from .windows import Windows, window

__all__ = [
    "Padded", "Windows", "add_features", "add_indicators", "batches", "fill_forward", "fill_mean", "fill_zero",
    "lengths_to_mask", "mask_to_lengths", "observed_mean", "observed_of", "pad", "padding_share", "swap_time_batch",
    "time_since_seen", "truncate", "unpad", "window",
]
