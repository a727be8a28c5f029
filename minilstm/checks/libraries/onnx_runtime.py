"""ONNX Runtime: forward only."""
import numpy as np

from ...interop import to_onnx
from .common import Shaped, halves_of, initial_states, lengths_of


class OnnxRuntime(Shaped):
    """A float32 minilstm LSTM, GRU or RNN as an ONNX graph."""
    any_mask = False

    def __init__(self, layer):
        import onnxruntime
        super().__init__(layer)
        self.session = onnxruntime.InferenceSession(
            to_onnx(layer).SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, batch, mask=None):
        B, T, _ = batch["x"].shape
        lengths = np.full(B, T) if mask is None else lengths_of(mask)
        inputs = {"x": batch["x"], "sequence_lens": lengths.astype("int32"), **initial_states(batch)}
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, inputs)))

    def halves(self):
        return [OnnxRuntime(half) for half in halves_of(self.like)]
