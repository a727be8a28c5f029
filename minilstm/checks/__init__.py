"""Checks that a user can run on any layer, their own included."""
from . import laws, zeros
from .gradients import check_gradients

__all__ = ["check_gradients", "laws", "zeros"]
