"""Ways to give a sequence model more than its sequence."""
from .covariates import CovariateSpec, CovariateWindows
from .forecaster import Forecaster

__all__ = ["CovariateSpec", "CovariateWindows", "Forecaster"]
