"""A saved model is the same model; any other file is refused with one kind of exception; nothing is half written."""
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import every_layer
import minilstm
from helpers import KINDS, assert_close, random_layer, same_bits

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def saved(tmp_path):
    """The path of a small model in a file."""
    path = tmp_path / "model.safetensors"
    minilstm.save(path, minilstm.Sequential(minilstm.LSTM(2, 3), minilstm.Linear(3, 1)))
    return path


def rewritten(path, tensors=None, **metadata):
    """The same file with other tensors or metadata; None as a value takes an entry out."""
    with safetensors.safe_open(path, framework="numpy") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}
        new = {key: value for key, value in (file.metadata() | metadata).items() if value is not None}
    old = {name: a for name, a in (old | (tensors or {})).items() if a is not None}
    path.write_bytes(safetensors.numpy.save(old, new))
    return path


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_round_trip_of_every_layer(tmp_path, backend):
    rng = np.random.default_rng(0)
    every = every_layer.model(rng).astype("float64")
    x, mask = every_layer.batch(rng)
    x = x.astype("float64")
    minilstm.save(tmp_path / "every", every)
    again = minilstm.load(tmp_path / "every", backend=backend)
    state = every.state_dict()
    assert list(again.state_dict()) == list(state)
    assert all(same_bits(p, state[name]) for name, p in again.state_dict().items())
    assert all(layer.backend == backend for _, layer in again.walk())
    assert_close(again.forward(x, mask)[0], every.forward(x, mask)[0], "same formulas, float64")


@pytest.mark.parametrize("net", [
    minilstm.GRU(2, 3, dtype="float64", seed=4), minilstm.LSTM(2, 3, num_layers=2, bidirectional=True, merge="mul"),
    minilstm.RNN(2, 3, reverse=True, activation="relu"), minilstm.LSTM(2, 3, peephole=True), minilstm.Linear(2, 3),
    minilstm.GRU(2, 3, reset_after=False), minilstm.GRU(2, 3, layer_norm=True, zoneout_h=0.1, dtype="float64"),
    minilstm.LSTM(2, 3, layer_norm=True, zoneout_c=0.25, recurrent_dropout=0.5, dtype="float64", seed=9),
    minilstm.LSTM(2, 5, proj_size=3, num_layers=2, dropout=0.5, seed=7), minilstm.LSTM(9, 300, proj_size=2),
], ids=lambda net: type(net).__name__)
def test_arguments_and_dtype_come_back(tmp_path, net):
    minilstm.save(tmp_path / "net", net)
    again = minilstm.load(tmp_path / "net")
    assert again.dtype == net.dtype and again.arguments() == net.arguments()
    assert again.params.keys() == net.params.keys()
    assert all(same_bits(again.params[name], p) for name, p in net.params.items())
    if net.takes_training:
        x = np.ones((2, 3, net.input_size), net.dtype)
        assert same_bits(again.forward(x, training=True)[0].y, net.forward(x, training=True, draw=0)[0].y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_cast_to_another_dtype_keeps_its_arguments(tmp_path, kind):
    net = random_layer(np.random.default_rng(0), kind, 2, 3, num_layers=2, dropout=0.25, dtype="float64",
                       backend="reference")
    cast = net.astype("float32")
    assert cast.arguments() == net.arguments()
    minilstm.save(tmp_path / "net", cast)
    x = np.ones((1, 4, 2), "float32")
    assert same_bits(minilstm.load(tmp_path / "net", backend="reference").forward(x)[0].y, cast.forward(x)[0].y)


def test_the_first_format_is_read_for_ever():
    again = minilstm.load(FIXTURES / "format_1.safetensors")
    with np.load(FIXTURES / "format_1_output.npz") as expected:
        assert_close(again.forward(expected["x"], expected["mask"])[0], expected["y"], "same formulas, float32")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        minilstm.save(saved, minilstm.Linear(3, 3))
    assert saved.read_bytes() == before and os.listdir(tmp_path) == [saved.name]
    monkeypatch.undo()
    minilstm.save(saved, minilstm.Linear(3, 3))
    assert type(minilstm.load(saved)) is minilstm.Linear and os.listdir(tmp_path) == [saved.name]


def test_only_this_librarys_layers_are_saved(tmp_path):
    class Mine(minilstm.Linear):
        pass

    with pytest.raises(TypeError, match="layer: expected one of .*Attention, .*, GRU, .*, RNN, Sequential, got Mine"):
        minilstm.save(tmp_path / "mine", minilstm.Sequential(Mine(2, 2)))
    assert os.listdir(tmp_path) == []


def test_what_could_not_be_read_is_not_written(saved):
    before = saved.read_bytes()
    net = minilstm.Linear(2, 2)
    net.params["weight"] = np.ones((3, 3), "float32")
    with pytest.raises(ValueError, match=r"params\['weight'\]: expected .*\(2, 2\), got float32 \(3, 3\)"):
        minilstm.save(saved, net)
    with pytest.raises(ValueError, match="layer: expected one of 'float32', 'float64', got dtype\\('complex64'\\)"):
        minilstm.save(saved, minilstm.Linear(2, 2).astype("complex64"))
    assert saved.read_bytes() == before


def test_a_link_is_followed_and_a_long_name_is_fine(tmp_path, saved):
    link, long_name = tmp_path / "link", tmp_path / ("n" * 250)
    link.symlink_to(saved)
    for path in (link, long_name):
        minilstm.save(path, minilstm.Linear(5, 5))
        assert minilstm.load(path).input_size == 5
    assert link.is_symlink() and minilstm.load(str(saved).encode()).input_size == 5


def test_a_wrong_backend_is_not_the_files_fault(saved):
    with pytest.raises(ValueError, match="backend: expected one of 'reference', 'cpu', 'gpu', got 'tpu'") as caught:
        minilstm.load(saved, backend="tpu")
    assert not isinstance(caught.value, minilstm.FormatError)


def test_a_missing_file_is_an_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        minilstm.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        minilstm.save(tmp_path / "nowhere" / "model", minilstm.Linear(1, 1))


LSTM = {"type": "LSTM", "input_size": 2, "hidden_size": 3, "num_layers": 1, "bidirectional": False, "peephole": False,
        "coupled": False, "dtype": "float32"}
LINEAR = {"type": "Linear", "input_size": 3, "output_size": 1, "bias": True, "dtype": "float32"}


def of(*layers):
    return {"layer": json.dumps({"type": "Sequential", "layers": layers})}


@pytest.mark.parametrize("change, words", [
    ({"format": None}, "format None"),
    ({"format": "keras"}, "format 'keras'"),
    ({"version": "2"}, "version '2'"),
    ({"layer": None}, "layer"),
    ({"layer": "{"}, "Expecting property name"),
    ({"layer": "[" * 100_000}, "recursion|Expecting value"),
    ({"layer": "7"}, "not iterable"),
    (of(LSTM), r"got also \['1.bias', '1.weight'\]"),
    (of(LSTM, LINEAR, LINEAR | {"input_size": 1}), "missing .*'2.bias'"),
    (of(LSTM, LINEAR | {"type": "Attention"}), "Attention"),
    (of(LSTM, {"same_as": 5}), "out of range"),
    (of(LSTM | {"hidden_size": 2}, LINEAR | {"input_size": 2}), r"expected a NumPy array float32 \(8, 2\), got"),
    (of(LSTM | {"hidden_size": 4}, LINEAR), "'hidden_size': 4, .*more than its tensors hold"),
    (of(LSTM, LINEAR | {"input_size": 4}), "layers: expected input_size=3 in place 1, as the layer before it gives"),
    (of(LSTM | {"hidden_size": 10**9}, LINEAR), "'hidden_size': 1000000000, .*more than its tensors hold"),
    (of(LSTM | {"num_layers": 10**9}, LINEAR), "'num_layers': 1000000000, .*more than its tensors hold"),
    (of(LSTM, *[LINEAR] * 300), "more than its tensors hold"),
    (of(LSTM | {"input_size": 10**9}, LINEAR), "'input_size': 1000000000, .*more than its tensors hold"),
    (of(LSTM | {"hidden_size": 10**8, "proj_size": 1}, LINEAR), "'proj_size': 1.*more than its tensors hold"),
    (of(*[LINEAR | {"input_size": 1}] * 9), "more than its tensors hold"),
    (of(LSTM | {"hidden_size": 400}, LINEAR) | {"tensors": {"u": np.zeros(10**6, "uint8")}}, "tensors hold"),
    (of(LSTM, LINEAR | {"noise_seed": 7}), "unexpected keyword argument 'noise_seed'"),
    (of(LSTM, LINEAR | {"input_size": 40, "output_size": 40}), "more than its tensors hold"),
    (of(LSTM | {"dtype": "f4,,"}, LINEAR), "dtype: expected one of"),
    (of(LSTM, {"same_as": -1}), "same_as: expected an integer, 0 or more, got -1"),
    ({"layer": json.dumps({"type": "Sequential", "layers": [LSTM, LINEAR], "extra": 5})}, "Sequential"),
    (of(LSTM | {"hidden_size": -1}, LINEAR), "hidden_size: expected a positive integer, got -1"),
    (of(LSTM | {"dtype": "float64"}, LINEAR | {"dtype": "float64"}), "expected a NumPy array float64"),
    (of(LSTM | {"proj_size": 2}, LINEAR | {"input_size": 2}), r"missing \['0.weight_hr_l0'\]"),
    (of(LSTM | {"units": 2}, LINEAR), "unexpected keyword argument 'units'"),
    (of(LSTM | {"noise_seed": -1}, LINEAR), "noise_seed: expected an integer, 0 or more, got -1"),
    (of(LSTM | {"zoneout_c": 1.5}, LINEAR), "zoneout_c: expected a probability, 0 or more and less than 1, got 1.5"),
    ({"tensors": {"1.bias": None}}, r"missing \['1.bias'\]"),
    ({"tensors": {"more": np.ones(3, "float32")}}, r"got also \['more'\]"),
    ({"tensors": {"1.bias": np.ones(2, "float32")}}, r"\(1,\), got float32 \(2,\)"),
    ({"tensors": {"1.bias": np.ones(1, "float16")}}, r"float32 \(1,\), got float16 \(1,\)"),
])
def test_a_file_that_does_not_fit_says_why(saved, change, words):
    with pytest.raises(minilstm.FormatError, match=words):
        minilstm.load(rewritten(saved, **change))


def test_other_files_are_refused(tmp_path, saved):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    others = {"nothing": b"", "text": b"hello, world" * 50, "npz": (tmp_path / "other.npz").read_bytes(),
              "pickle": pickle.dumps(os.getcwd), "huge header": (2**63 - 1).to_bytes(8, "little") + b"{}",
              "long header": (10**8).to_bytes(8, "little") + saved.read_bytes()[8:],
              "header of blanks": (200).to_bytes(8, "little") + b" " * 200}
    for name, content in others.items():
        saved.write_bytes(content)
        with pytest.raises(minilstm.FormatError, match="expected a minilstm model"):
            minilstm.load(saved)


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole), 7):
        saved.write_bytes(whole[:length])
        with pytest.raises(minilstm.FormatError):
            minilstm.load(saved)


def test_flipped_bytes_give_the_documented_exception_or_a_model(saved):
    """Two thousand files with up to four bytes changed: never another exception, and never a long wait.  Where the
    numbers of a tensor are hit, the file is a model like any other."""
    seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(seed)
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for turn in range(2000):
        content = bytearray(whole)
        reach = header if turn % 2 else len(whole)
        for place in rng.integers(0, reach, rng.integers(1, 5)):
            content[place] = rng.integers(256)
        saved.write_bytes(content)
        start = time.process_time()
        try:
            minilstm.load(saved)
        except minilstm.FormatError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, turn {turn}: {bytes(content)}") from error
        assert time.process_time() - start < 2, f"seed {seed}, turn {turn}: {bytes(content)}"
    assert refused > 500


def test_what_is_no_layer_is_named(tmp_path):
    with pytest.raises(TypeError, match="layer: expected a Layer, after the path, got str"):
        minilstm.save(minilstm.Linear(1, 1), str(tmp_path / "model"))
