"""Checks that a user can run on any layer, their own included."""
from . import laws, zeros
from .gradients import check_gradients
from .interaction import check_interaction, interaction
from .leaks import check_leaks

__all__ = ["check_gradients", "check_interaction", "check_leaks", "interaction", "laws", "zeros"]
