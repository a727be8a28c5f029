"""What turns gradients into a trained model: a loss, an optimizer, a schedule, clipping, and the loop around them; and
learning from rewards, where there is no target."""
from .clipping import clip_global_norm, clip_value
from .fit import Epoch, evaluate, fit
from .losses import (
    binary_cross_entropy, gaussian_loss, gaussian_of, huber, mean_absolute_error, mean_squared_error, quantile_loss,
    softmax_cross_entropy)
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from .policy import Policy
from .rewards import (
    Episodes, advantages, episode_chances, policy_gradient, policy_loss, reinforce, returns_to_go, rollout)
from .run import History
from .schedules import Constant, Cosine, Plateau, Schedule, StepDecay, WarmUp
from .softmax import log_softmax
from .t_maze import TMaze
from .truncated import TruncatedPass, truncated_bptt

__all__ = [
    "Adam", "AdamW", "Constant", "Cosine", "Episodes", "Epoch", "History", "Optimizer", "Plateau", "Policy", "RMSprop",
    "SGD", "Schedule", "StepDecay", "TMaze", "TruncatedPass", "WarmUp", "advantages", "binary_cross_entropy",
    "clip_global_norm", "clip_value", "episode_chances", "evaluate", "fit", "gaussian_loss", "gaussian_of", "huber",
    "log_softmax", "mean_absolute_error", "mean_squared_error", "policy_gradient", "policy_loss", "quantile_loss",
    "reinforce", "returns_to_go", "rollout", "softmax_cross_entropy", "truncated_bptt",
]
