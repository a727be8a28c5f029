"""What turns gradients into a trained model: a loss, an optimizer, clipping, and the loop around them."""
from .clipping import clip_global_norm
from .fit import fit
from .losses import mean_squared_error
from .optimizers import Adam

__all__ = ["Adam", "clip_global_norm", "fit", "mean_squared_error"]
