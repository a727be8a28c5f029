"""Pictures: what gates do, which way gradients take, what attention looks at, how a training went.

Each function returns a ``matplotlib.figure.Figure`` and shows nothing: ``figure.savefig("gates.png")`` writes it, a
notebook shows it.  pyplot is not used, so there is no current figure, and nothing to close.

The pictures can be read in print and by eyes that tell few colours apart: lines differ in their dashes as well as in
the colours of Okabe and Ito (2008), areas are hatched, and the map of colours, cividis (Nunez, Anderton and Renslow
2018), runs from dark to light.  Masked steps are hatched and have no value.

    from minilstm import plots          is what imports matplotlib; ``import minilstm`` does not
"""
from .attention import attention_map
from .forecast import quantile_forecast
from .gates import gates
from .gradients import gradient_flow
from .saturation import saturation
from .training import training_curves

__all__ = ["attention_map", "gates", "gradient_flow", "quantile_forecast", "saturation", "training_curves"]
