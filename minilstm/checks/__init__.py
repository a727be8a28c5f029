"""Checks that a user can run on any layer, their own included."""
from . import laws, zeros
from .gradients import check_gradients
from .interaction import check_interaction, interaction
from .leaks import check_leaks
from .nonfinite import NonFinite, find_nonfinite
from .paths import GradientPaths, gradient_paths
from .saturation import Saturation, gate_saturation

__all__ = ["GradientPaths", "NonFinite", "Saturation", "check_gradients", "check_interaction", "check_leaks",
           "find_nonfinite", "gate_saturation", "gradient_paths", "interaction", "laws", "zeros"]
