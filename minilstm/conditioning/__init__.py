"""Ways to give a sequence model more than its sequence.

    Conditioned     a recurrent layer that is told a condition; one argument says how
    Concatenated, Late, FiLM, Gated, AttendConditions, AttendTime
                    layers that join a sequence and a condition, to stand anywhere in a ``Sequential``
    CovariateLSTM   an LSTM in whose memory a covariate has a candidate and an input gate of its own
    CovariateSpec, CovariateWindows, Forecaster
                    covariates of a forecast: which steps of them are read, and a model that reads them
"""
from ..layers.saving import register
from .attending import AttendConditions, AttendTime
from .conditioned import STRATEGIES, Conditioned
from .covariate_lstm import CovariateLSTM
from .covariates import CovariateSpec, CovariateWindows
from .forecaster import Forecaster
from .fusion import Concatenated, FiLM, Gated, Late

__all__ = ["AttendConditions", "AttendTime", "Concatenated", "Conditioned", "CovariateLSTM", "CovariateSpec",
           "CovariateWindows", "FiLM", "Forecaster", "Gated", "Late", "STRATEGIES"]


def _least(kind, sizes):
    """How many numbers a layer of this package has at the least."""
    D, C, H, A, S, Z, layers = (sizes.get(name, 0) for name in (
        "input_size", "condition_size", "hidden_size", "attention_size", "branch_size", "covariate_size", "num_layers"))
    R = sizes.get("proj_size", 0) or H
    if kind in ("AttendConditions", "AttendTime"):
        return A * (C + D) + D * min(C, D)
    if kind in ("Conditioned", "CovariateLSTM"):
        return H * (D + layers * (R + 2)) + R * C + H * Z
    return {"Late": S, "FiLM": D, "Gated": D, "Concatenated": 0}[kind] * C


for _layer_class in (AttendConditions, AttendTime, Concatenated, Conditioned, CovariateLSTM, FiLM, Gated, Late):
    register(_layer_class, _least, tensors=_layer_class is not Concatenated)
