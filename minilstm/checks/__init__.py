"""Checks that a user can run on any layer, their own included."""
from . import laws, zeros
from .gradients import check_gradients
from .interaction import check_interaction, interaction

__all__ = ["check_gradients", "check_interaction", "interaction", "laws", "zeros"]
