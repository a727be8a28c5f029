"""The laws of masking hold for minilstm, are broken by what is broken, and tell other libraries apart.

``MINILSTM_LAW_CASES=2000 pytest tests/test_laws.py`` asks each law of so many random layers, in place of 100."""
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import DTYPES_AND_KINDS, KINDS, random_layer
from minilstm.checks.batches import deviation, worst
from minilstm.checks.laws import LAWS, LIMITS, Verdict, ask
from minilstm.checks.libraries.ours import Ours, Pooling
from minilstm.checks.model import Cannot

CASES = int(os.environ.get("MINILSTM_LAW_CASES", 100))
BACKENDS = ["reference", "cpu"]
WALKS = [{}, {"reverse": True}, *({"bidirectional": True, "merge": merge} for merge in ("concat", "sum", "ave", "mul"))]
OTHER_BATCHES = {"order of rows", "ragged rows", "holes", "empty rows"}     # laws under which a row changes its company


# ----------------------------------------------------------------------------------------------------------- minilstm

@pytest.mark.parametrize("dtype, kinds", DTYPES_AND_KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAWS)
def test_minilstm_keeps_every_law(name, backend, dtype, kinds):
    """Outputs, states and the gradients of x and of the states bit for bit, those of the weights by rounding at most.
    Only NumPy's products (reference) may round a row as the rows around it decide."""
    @settings(max_examples=(CASES + 3) // 4, deadline=None)
    @given(D=st.integers(1, 4), H=st.integers(1, 6), num_layers=st.integers(1, 2), walk=st.sampled_from(WALKS),
           kind=st.sampled_from(kinds), seed=st.integers(0, 2**32))
    def keeps(D, H, num_layers, walk, kind, seed):
        rng = np.random.default_rng(seed)
        model = Ours(random_layer(rng, kind, D, H, num_layers=num_layers, backend=backend, dtype=dtype, **walk))
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.filterwarnings("ignore", "invalid value encountered in matmul")    # BLAS, on finite numbers
            verdict = LAWS[name](model, rng)
        if verdict.kept is None:
            assert name in ("chunks", "directions") and verdict.reason
        else:
            if "norm" in kind and name in OTHER_BATCHES:            # normalising divides by what may be small, and so
                verdict = verdict._replace(limit=10 * verdict.limit)        # enlarges rounding from layer to layer
            assert verdict.kept, verdict
            exact = backend == "cpu" or name not in OTHER_BATCHES
            assert not exact or not any(d for array, d in verdict.deviations.items() if array[:2] != "d "), verdict

    keeps()


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset_after", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_cell_for_missing_values_keeps_every_law_but_that_of_chunks(reset_after, backend):
    """On data in which nothing is missing; ``test_gru_d.py`` has gaps.  A chunk does not know when a feature was last
    measured; where that does not count, chunks are the whole."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        layer = minilstm.GRUD(3, 5, reset_after=reset_after, dtype=dtype, backend=backend)
        for name, p in layer.params.items():
            layer.params[name] = (0.6 * rng.normal(size=p.shape)).astype(dtype)
        for name, law in LAWS.items():
            if name == "chunks":
                layer.params["decay_h_weight"] = np.zeros_like(layer.params["decay_h_weight"])
            verdict = ask(law, [Ours(layer)], rng)
            verdict.deviations.pop("d decay_h_weight" if name == "chunks" else "", None)
            assert verdict.kept or name == "directions" and verdict.kept is None, verdict
            exact = backend == "cpu" or name not in OTHER_BATCHES
            assert not exact or not any(d for array, d in verdict.deviations.items() if array[:2] != "d "), verdict


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_law_is_asked_wherever_it_makes_sense(walk, num_layers):
    """Chunks of all that walks one way, directions of all that walks from the end and can be taken apart."""
    model = Ours(minilstm.LSTM(2, 3, num_layers=num_layers, **walk))
    asked = {name for name, law in LAWS.items() if law(model, np.random.default_rng(0)).kept is not None}
    one_way = not walk.get("bidirectional")
    apart = walk.get("reverse") or walk.get("merge") == "concat" and num_layers == 1
    assert asked == LAWS.keys() - (set() if one_way else {"chunks"}) - (set() if apart else {"directions"})


def test_asking_does_not_touch_the_layer():
    layer = random_layer(np.random.default_rng(0), "LSTM", 2, 3)
    before = layer.state_dict()
    ask(LAWS["holes"], [Ours(layer)], np.random.default_rng(1), times=2)
    assert not any(g.any() for g in layer.grads.values())
    assert all((layer.params[name] == p).all() for name, p in before.items())


# ------------------------------------------------------------------------------------------ a law must be able to fail

class Broken(Ours):
    """An LSTM with one fault: of what goes in (``spoil``) or of what comes out (``spoil_found``)."""

    def spoil(self, batch, mask):
        return batch, mask

    def spoil_found(self, found, batch, mask):
        return found

    def run(self, batch, mask=None):
        return self.spoil_found(super().run(*self.spoil(batch, mask)), batch, mask)

    def halves(self):
        return [type(self)(half.layer) for half in super().halves()]


class Zeroed(Broken):
    """Multiplies x by the mask, and steps on."""
    def spoil(self, batch, mask):
        return (batch if mask is None else batch | {"x": batch["x"] * mask[:, :, None]}), None


class NaNLeaks(Broken):
    """Sees padding through a factor of 0."""
    def spoil_found(self, found, batch, mask):
        return found | {"y": found["y"] + 0 * batch["x"].sum(axis=(1, 2), keepdims=True)}


class NaNLeaksBack(Broken):
    """The same in the gradients alone, as of a ``where`` whose unused side is NaN."""
    def spoil_found(self, found, batch, mask):
        return found | {"d weight_ih_l0": found["d weight_ih_l0"] + 0 * batch["x"].sum()}


class PaddingLearns(Broken):
    """The gradient of a padded step's output goes somewhere."""
    def spoil_found(self, found, batch, mask):
        return found | {"dh0": found["dh0"] + 1e-6 * batch["dy"].sum(axis=(1, 2))[:, None]}


class PaddingGetsGradient(Broken):
    """Outputs are right, and yet x gets a gradient where it was not read."""
    def spoil_found(self, found, batch, mask):
        return found if mask is None else found | {"dx": found["dx"] + ~mask[:, :, None]}


class RowsMix(Broken):
    """A trace of the batch's mean, as of a batch normalisation."""
    def spoil_found(self, found, batch, mask):
        return found | {"h_n": found["h_n"] + 1e-13 * batch["h0"].mean(axis=2, keepdims=True)}


class RowsCount(Broken):
    """A trace of a row's place in the batch."""
    def spoil_found(self, found, batch, mask):
        return found | {"h_n": found["h_n"] + 1e-6 * np.arange(found["h_n"].shape[2])[:, None]}


class LastColumn(Broken):
    """Takes the last output, real or not, for the final state."""
    def spoil_found(self, found, batch, mask):
        return found | {"h_n": found["y"][None, None, :, -1]}


class PacksEverything(Broken):
    """Takes any mask for one of padding behind."""
    def spoil(self, batch, mask):
        return batch, None if mask is None else np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True)


class ForgetsItsState(Broken):
    """Begins at 0, whatever the initial state."""
    def spoil(self, batch, mask):
        return batch | {"h0": 0 * batch["h0"]}, mask


class LosesTheStatesGradient(Broken):
    """Ignores the gradient of the final memory."""
    def spoil(self, batch, mask):
        return batch | {"dc_n": 0 * batch["dc_n"]}, mask


class MaskedOtherwise(Broken):
    """Scales what it is given with a mask, even one that hides nothing."""
    def spoil_found(self, found, batch, mask):
        return found if mask is None else found | {"y": found["y"] * (1 + 1e-6)}


class BackwardUnmasked(Broken):
    """A bidirectional layer whose backward half walks through the padding."""
    def spoil_found(self, found, batch, mask):
        if mask is None or len(self.reverse) == 1:
            return found
        unmasked = Ours.run(self, batch)
        y = np.concatenate([found["y"][:, :, :3], unmasked["y"][:, :, 3:]], axis=2)
        h_n = np.concatenate([found["h_n"][:, :1], unmasked["h_n"][:, 1:]], axis=1)
        return found | {"y": y, "h_n": h_n}


class HalvesSwapped(Broken):
    """A bidirectional layer with the wrong half in front."""
    def spoil_found(self, found, batch, mask):
        return found | {"y": np.concatenate(np.split(found["y"], len(self.reverse), axis=2)[::-1], axis=2)}


COMPANY = {"ragged rows", "holes", "empty rows"}
BROKEN = {          # class -> the laws that it breaks, all of them and no other
    Zeroed: {"amount of padding", "side of padding", "content of padding", "gradient at padding"} | COMPANY,
    NaNLeaks: {"content of padding"},
    NaNLeaksBack: {"content of padding"},
    PaddingLearns: {"gradient at padding", "chunks"},
    PaddingGetsGradient: {"content of padding", "gradient at padding", "empty rows"},
    RowsMix: {"rows are apart"},
    RowsCount: {"order of rows", "chunks"} | COMPANY,
    LastColumn: {"amount of padding", "side of padding", "chunks"} | COMPANY,
    PacksEverything: {"side of padding", "content of padding", "gradient at padding", "chunks", "ragged rows", "holes"},
    ForgetsItsState: {"chunks", "empty rows"},
    LosesTheStatesGradient: {"chunks", "empty rows"},
    MaskedOtherwise: {"no mask", "ragged rows", "holes"},
    BackwardUnmasked: {"amount of padding", "side of padding", "content of padding", "directions"} | COMPANY,
    HalvesSwapped: {"directions"},
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_model_breaks_its_laws_and_no_other(broken):
    both = broken in (BackwardUnmasked, HalvesSwapped)
    rng = np.random.default_rng(1)
    model = broken(random_layer(rng, "LSTM", 2, 3, bidirectional=both, dtype="float64"))
    verdicts = {name: ask(law, [model], rng, times=25) for name, law in LAWS.items()}
    assert {name for name, verdict in verdicts.items() if verdict.kept is False} == BROKEN[broken]


def test_every_law_is_broken_by_something():
    assert set().union(*BROKEN.values()) == LAWS.keys()


# ------------------------------------------------------------------------------------------------------------ pooling

def mean(x, mask, dpooled):
    count = np.maximum(mask.sum(axis=1), 1)[:, None]
    return (np.where(mask[:, :, None], x, 0).sum(axis=1) / count,
            np.where(mask[:, :, None], (dpooled / count)[:, None], 0))


def mean_of_products(x, mask, dpooled):
    count = np.maximum(mask.sum(axis=1), 1)[:, None]
    return (x * mask[:, :, None]).sum(axis=1) / count, mask[:, :, None] * (dpooled / count)[:, None]


def mean_of_all(x, mask, dpooled):
    return x.mean(axis=1), np.repeat(dpooled[:, None] / x.shape[1], x.shape[1], axis=1)


def mean_by_division(x, mask, dpooled):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mask[:, :, None], x, 0).sum(axis=1) / mask.sum(axis=1)[:, None], mean(x, mask, dpooled)[1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("pool, broken", [
    (mean, set()), (mean_of_products, {"content of padding"}), (mean_by_division, {"empty rows"}),
    (mean_of_all, {"amount of padding", "content of padding", "ragged rows", "holes", "empty rows"})])
def test_laws_of_pooling(pool, broken):
    """Of a function of all steps the same laws are asked, but those that need outputs of steps, a state or a walk."""
    rng = np.random.default_rng(2)
    verdicts = {name: ask(law, [Pooling(pool, "float64")], rng, times=20) for name, law in LAWS.items()}
    assert {name for name, verdict in verdicts.items() if verdict.kept is False} == broken
    assert {name for name, verdict in verdicts.items() if verdict.kept is None} == {
        "gradient at padding", "chunks", "directions"}


# ------------------------------------------------------------------------------------------------------------ verdicts

@pytest.mark.parametrize("found, expected, size", [
    ([1.0, 2.0], [1.0, 2.0], 0), ([3.0, 200.0], [1.0, 200.0], 0.01), ([0.1, 0.3], [0.1, 0.2], 0.1), ([], [], 0),
    ([0.0], [-0.0], 5e-324), ([1e308], [-1e308], np.inf)])
def test_deviation(found, expected, size):
    """Of the largest number expected, or of 1; 0 for the same bits alone."""
    assert deviation(np.array(found), np.array(expected)) == pytest.approx(size, rel=1e-12)
    assert (deviation(np.array(found), np.array(expected)) > 0) == (size > 0)


def test_nothing_that_is_not_finite_passes():
    nan = np.array([np.nan])
    for value in (nan, -np.inf * np.ones(1)):
        assert np.isnan(deviation(value, value)) and np.isnan(deviation(np.ones(1), value))
    assert np.isnan(worst({"y": 0.0}, {"y": np.nan}, {"y": 1.0})["y"])
    assert Verdict("law", {"y": np.nan}, 1.0, "").kept is False
    with pytest.raises(ValueError, match=r"found: expected shape \(2,\), got \(1,\)"):
        deviation(nan, np.zeros(2))


@pytest.mark.parametrize("deviations, kept, found", [
    ({"y": 0.0, "dx": 0.0}, True, "bits / bits"), ({"y": 0.0, "h_n": 2e-16, "dx": 1e-16}, True, "2e-16 / 1e-16"),
    ({"y": 0.0, "d bias": 0.123, "dx": 1e-16}, False, "bits / BROKEN 0.12"), ({"y": np.nan, "h_n": 3.0}, False, "NaN"),
    ({"y": np.inf}, False, "BROKEN inf"), ({}, None, "cannot")])
def test_words_of_a_verdict(deviations, kept, found):
    verdict = Verdict("law", deviations, 1e-10, "")
    assert verdict.kept is kept and verdict.found == found


def test_ask_takes_the_worst_and_no_answer_only_where_there_is_no_other():
    silent = Ours(minilstm.LSTM(2, 3, bidirectional=True))
    asked = Ours(minilstm.LSTM(2, 3))
    rng = np.random.default_rng(3)
    assert ask(LAWS["chunks"], [silent], rng, times=2).reason == "it walks both ways"
    verdict = ask(LAWS["chunks"], [silent, asked], rng, times=2)
    assert verdict.kept and not verdict.reason and "d weight_ih_l0" in verdict.deviations
    broken = ForgetsItsState(minilstm.LSTM(2, 3))
    assert ask(LAWS["chunks"], [asked, broken, silent], rng, times=5).kept is False


def test_a_reason_is_kept():
    class Refuses(Ours):
        def run(self, batch, mask=None):
            raise Cannot("it is tired")
    verdict = LAWS["holes"](Refuses(minilstm.LSTM(2, 3)), np.random.default_rng(0))
    assert verdict == Verdict("holes", {}, LIMITS["float32"], "it is tired")
    assert verdict.kept is None and verdict.largest == 0


# ----------------------------------------------------------------------------------------------------- other libraries

def test_laws_bring_no_other_library():
    code = ("import sys, minilstm.checks.laws, minilstm.checks.zeros, minilstm.checks.libraries.ours;"
            "sys.exit(bool({'torch', 'keras', 'onnx', 'onnxruntime'} & sys.modules.keys()))")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def scoreboard(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import scoreboard_of_laws
    yield scoreboard_of_laws
    for name in ("measure", "scoreboard_of_laws"):
        sys.modules.pop(name, None)


@pytest.fixture
def others(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    for library in ("torch", "keras", "onnx", "onnxruntime"):
        reason = f"comparison with {library}: it is not installed (pip install -e '.[peers]')"
        pytest.importorskip(library, reason=reason)
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                        # arrays are small here, and threads wait for threads
    yield
    torch.set_num_threads(threads)


KNOWN = {                   # column -> (the laws it breaks, the laws that it cannot be asked)
    "minilstm, masked_max": (set(), {"gradient at padding", "chunks", "directions"}),
    "minilstm, masked_mean": (set(), {"gradient at padding", "chunks", "directions"}),
    "PyTorch, packed": (set(), {"side of padding", "holes", "empty rows"}),
    "PyTorch, zeroed": ({"amount of padding", "side of padding", "content of padding", "gradient at padding",
                         "directions"} | COMPANY, set()),
    "Keras": ({"content of padding"}, set()),
    "ONNX Runtime": ({"empty rows"}, {"side of padding", "holes", "gradient at padding"}),
    "Keras GlobalMaxPooling1D": ({"amount of padding", "content of padding"} | COMPANY,
                                 {"gradient at padding", "chunks", "directions"}),
    "Keras GlobalAveragePooling1D": ({"empty rows"}, {"gradient at padding", "chunks", "directions"}),
}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore::RuntimeWarning", "ignore:Layer 'global_max")
def test_scoreboard_finds_what_other_libraries_are_known_for(scoreboard, others):
    rng = np.random.default_rng(4)
    verdicts = scoreboard.score(scoreboard.theirs(rng), times=4) | scoreboard.score(scoreboard.pools(), times=25)
    for column, (broken, cannot) in KNOWN.items():
        kept = {name: verdicts[name, column].kept for name in LAWS}
        assert {name for name in LAWS if kept[name] is False} == broken, column
        assert {name for name in LAWS if kept[name] is None} == cannot, column
    assert verdicts["content of padding", "Keras"].found == "bits / NaN"
    assert np.isnan(verdicts["empty rows", "Keras GlobalAveragePooling1D"].deviations["pooled"])
    assert "greater than 0" in verdicts["empty rows", "PyTorch, packed"].reason
    empty = verdicts["empty rows", "ONNX Runtime"].deviations
    assert [name for name, d in empty.items() if d > LIMITS["float32"]] == ["h_n", "c_n"]
    lines = scoreboard.table(verdicts).splitlines()
    assert len(lines) == 2 + len(LAWS)
    assert lines[4].startswith("| content of padding | bits / bits | NaN / NaN | bits / NaN | bits |")
    json.dumps(scoreboard.as_json(verdicts), allow_nan=False)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_adapters_say_what_they_expect(others, monkeypatch):
    import keras
    from minilstm.checks.libraries.keras import Keras, KerasPooling
    from minilstm.interop import to_keras
    with pytest.raises(ValueError, match="layer: expected return_sequences=True and return_state=True, got True and F"):
        Keras(to_keras(minilstm.LSTM(2, 3)))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND: expected 'torch', whose gradients are taken here, got 'jax'"):
        KerasPooling(keras.layers.GlobalMaxPooling1D())


@pytest.mark.long
def test_scoreboard_has_every_cell_and_walk_of_ours_and_nothing_broken(scoreboard):
    columns = scoreboard.ours(np.random.default_rng(5))
    assert columns.keys() == {"minilstm, cpu", "minilstm, reference"}
    assert {model.layer.cell.name for model in columns["minilstm, cpu"]} == {
        layer_class(2, 3, **options).cell.name for layer_class, options in KINDS.values()}
    verdicts = scoreboard.score(columns, times=1)
    assert all(verdict.kept for verdict in verdicts.values())
    assert all(verdicts[name, "minilstm, cpu"].found.startswith("bits") for name in LAWS)
