"""What turns gradients into a trained model: a loss, an optimizer, clipping, and the loop around them; and learning
from rewards, where there is no target."""
from .clipping import clip_global_norm
from .fit import fit
from .losses import mean_squared_error, softmax_cross_entropy
from .optimizers import Adam
from .policy import Policy
from .rewards import (
    Episodes, advantages, episode_chances, policy_gradient, policy_loss, reinforce, returns_to_go, rollout)
from .softmax import log_softmax
from .t_maze import TMaze
from .truncated import TruncatedPass, truncated_bptt

__all__ = [
    "Adam", "Episodes", "Policy", "TMaze", "TruncatedPass", "advantages", "clip_global_norm", "episode_chances", "fit",
    "log_softmax", "mean_squared_error", "policy_gradient", "policy_loss", "reinforce", "returns_to_go", "rollout",
    "softmax_cross_entropy", "truncated_bptt",
]
