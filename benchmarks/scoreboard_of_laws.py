"""Which library keeps which law of masking?  The laws are in ``minilstm/checks/laws.py``.

Every layer gets random weights, other libraries' those of a minilstm layer; every law is asked of every layer many
times, on random batches in float32, and the worst answer stands in the table, outputs and states first, then gradients:

    bits            the same bits, always
    2e-07           rounding: the largest deviation, as a part of the largest number in its array where that is above 1
    BROKEN 0.5      more than that
    NaN             a number that is not finite
    cannot          the layer refuses such a batch, or has nothing of the kind

The columns:

    minilstm        every cell: forward, backward, both ways, two layers
    PyTorch, packed     LSTM and GRU, forward and both ways, as for all that follow: ``pack_padded_sequence``
    PyTorch, zeroed     the input multiplied by the mask, which is no mask
    Keras           on PyTorch, with ``mask=`` and zero_output_for_mask=True
    ONNX Runtime    with ``sequence_lens``; it has no gradients

A second table has pooling over time in Keras, whose layer below hands on the mask; GlobalMaxPooling1D warns that it
does not take it.

Run:  pip install -e '.[peers]' && python benchmarks/scoreboard_of_laws.py      (about two minutes)
      --times: draws for each law and layer; --save: keep the table in benchmarks/results/ and in README.md
"""
import argparse
import datetime
import importlib.metadata
import os

import numpy as np

import minilstm
from measure import into_readme, machine, markdown_table, save
from minilstm.checks.laws import LAWS, ask
from minilstm.checks.libraries.ours import Ours
from minilstm.interop import to_keras, to_pytorch

CELLS = [(minilstm.LSTM, {}), (minilstm.LSTM, {"peephole": True}), (minilstm.LSTM, {"coupled": True}),
         (minilstm.LSTM, {"layer_norm": True}), (minilstm.LSTM, {"proj_size": 2}), (minilstm.GRU, {}),
         (minilstm.GRU, {"reset_after": False}), (minilstm.GRU, {"layer_norm": True}), (minilstm.RNN, {}),
         (minilstm.RNN, {"activation": "relu"})]
WALKS = [{}, {"reverse": True}, {"bidirectional": True}, {"num_layers": 2}]
SHARED = [(cell, walk) for cell in ((minilstm.LSTM, {}), (minilstm.GRU, {})) for walk in ({}, {"bidirectional": True})]
PEERS = ("torch", "keras", "onnxruntime")


def layers(rng, kinds, backend="cpu"):
    """A minilstm layer of each kind (cell, walk), 3 features, 5 units, with random weights and biases."""
    made = []
    for (layer_class, options), walk in kinds:
        layer = layer_class(3, 5, **options, **walk, backend=backend)
        layer.load_state_dict({name: (0.6 * rng.standard_normal(p.shape)).astype(p.dtype)
                               for name, p in layer.params.items()})
        made.append(layer)
    return made


def ours(rng):
    """dict column -> models."""
    every = [(cell, walk) for cell in CELLS for walk in WALKS]
    return {f"minilstm, {backend}": [Ours(layer) for layer in layers(rng, every, backend)]
            for backend in ("cpu", "reference")}


def theirs(rng):
    from minilstm.checks.libraries.keras import Keras
    from minilstm.checks.libraries.onnx_runtime import OnnxRuntime
    from minilstm.checks.libraries.pytorch import PyTorchPacked, PyTorchZeroed
    shared = layers(rng, SHARED)
    return {"PyTorch, packed": [PyTorchPacked(to_pytorch(layer)) for layer in shared],
            "PyTorch, zeroed": [PyTorchZeroed(to_pytorch(layer)) for layer in shared],
            "Keras": [Keras(to_keras(layer, return_state=True)) for layer in shared],
            "ONNX Runtime": [OnnxRuntime(layer) for layer in shared]}


def pools():
    import keras
    from minilstm.checks.libraries.keras import KerasPooling
    return {f"Keras {name}": [KerasPooling(getattr(keras.layers, name)())]
            for name in ("GlobalMaxPooling1D", "GlobalAveragePooling1D")}


def score(columns, times):
    """dict (law, column) -> Verdict."""
    rng = np.random.default_rng(0)
    return {(name, column): ask(law, models, rng, times) for column, models in columns.items()
            for name, law in LAWS.items()}


def table(verdicts):
    """Markdown; laws of which no column can be asked are left out."""
    columns = list(dict.fromkeys(column for _, column in verdicts))
    rows = [[name, *(verdicts[name, column].found for column in columns)] for name in LAWS
            if any(verdicts[name, column].kept is not None for column in columns)]
    return markdown_table(["law", *columns], rows)


def as_json(verdicts):
    return [{"law": name, "library": column, "kept": verdict.kept, "found": verdict.found, "reason": verdict.reason,
             "broken": [array for array, d in verdict.deviations.items() if not d <= verdict.limit]}
            for (name, column), verdict in verdicts.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="draws for each law and layer")
    parser.add_argument("--save", action="store_true", help="keep the table in benchmarks/results/ and README.md")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "torch"                                   # read when Keras is imported
    here = machine() | {name: importlib.metadata.version(name) for name in PEERS}
    rng = np.random.default_rng(0)
    verdicts = [score(columns, arguments.times) for columns in (ours(rng) | theirs(rng), pools())]
    text = "\n\n".join(table(some) for some in verdicts)
    print(text)
    if arguments.save:
        path = save("laws", {"machine": here, "times": arguments.times,
                             "results": [row for some in verdicts for row in as_json(some)]})
        versions = ", ".join(f"{name} {here[name]}" for name in PEERS)
        into_readme("laws", f"Outputs and states / gradients, float32, {versions}, {datetime.date.today()}:\n\n{text}")
        print(f"saved: {path}")


if __name__ == "__main__":
    main()
