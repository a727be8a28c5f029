"""Layers to and from PyTorch: the same bits in the weights, the same numbers out, and a reason wherever not."""
import subprocess
import sys

import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, random_batch, random_layer, run, same_bits
from minilstm.interop import from_pytorch, load_pytorch_state, to_pytorch, to_pytorch_state
from torch_layers import run_module

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

B, T, D, H = 3, 5, 2, 4
LENGTHS = (None, [2, 5, 1])

LAYERS = {                          # the kinds of helpers.KINDS that PyTorch has: its class and options
    "LSTM": ("LSTM", {}),
    "LSTM, projection": ("LSTM", {"proj_size": 2}),
    "GRU": ("GRU", {}),
    "RNN, tanh": ("RNN", {"nonlinearity": "tanh"}),
    "RNN, relu": ("RNN", {"nonlinearity": "relu"}),
}
STACKS = [dict(num_layers=layers, bidirectional=both) for layers in (1, 2) for both in (False, True)]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")


def random_module(torch, kind, dtype="float64", **options):
    """A PyTorch module, with its own random weights: no bias is zero."""
    torch.manual_seed(0)
    name, of_kind = LAYERS[kind]
    return getattr(torch.nn, name)(D, H, dtype=getattr(torch, dtype), **{"batch_first": True} | of_kind | options)


def compare(net, module):
    rng = np.random.default_rng(0)
    for lengths in LENGTHS:
        batch = random_batch(rng, net, B, T)
        expected = run_module(module, batch, lengths)
        found = run(net, batch, lengths=lengths)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert found[name].dtype == array.dtype == net.dtype, name
            assert_close(found[name], array, f"pytorch, {net.dtype}", name)


# ------------------------------------------------------------------------------------------------------- one by one

@pytest.mark.peers
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_from_pytorch(torch, kind, stack, dtype):
    module = random_module(torch, kind, dtype, **stack)
    compare(from_pytorch(module, backend="reference"), module)


@pytest.mark.peers
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_to_pytorch_and_back(torch, kind, stack, dtype):
    net = random_layer(np.random.default_rng(1), kind, D, H, backend="reference", dtype=dtype, **stack)
    module = to_pytorch(net)
    compare(net, module)
    back = from_pytorch(module, backend="reference")
    assert (type(back), back.arguments(), back.backend) == (type(net), net.arguments(), "reference")
    for name, p in net.params.items():
        assert same_bits(back.params[name], p), name


@pytest.mark.peers
@pytest.mark.parametrize("kind", LAYERS)
def test_these_comparisons_notice_a_swapped_block_and_a_lost_bias(torch, kind):
    module = random_module(torch, kind)
    net = from_pytorch(module, backend="reference")
    for name, p in net.params.items():
        swapped = np.concatenate(np.split(p, 2 if name == "weight_hr_l0" else len(net.cell.blocks))[::-1])
        for wrong in (swapped, np.zeros_like(p)):
            if same_bits(wrong, p):
                continue                            # the simple RNN has one block
            net.params[name] = wrong
            with pytest.raises(AssertionError, match="relative error"):
                compare(net, module)
        net.params[name] = p
    compare(net, module)


@pytest.mark.peers
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_no_bias_is_a_bias_of_zeros(torch, kind, stack):
    module = random_module(torch, kind, bias=False, **stack)
    net = from_pytorch(module, backend="reference")
    x = np.random.default_rng(2).normal(size=(B, T, D))
    assert_close(net.forward(x)[0].y, module(torch.tensor(x))[0].detach().numpy(), "pytorch, float64", "y")


@pytest.mark.peers
def test_dropout_goes_along_and_time_first_does_not(torch):
    module = random_module(torch, "GRU", num_layers=2, dropout=0.25, batch_first=False)
    net = from_pytorch(module)
    assert net.arguments()["dropout"] == 0.25
    x = np.random.default_rng(3).normal(size=(B, T, D))
    y, _ = module.eval()(torch.tensor(x).transpose(0, 1))
    assert_close(net.forward(x)[0].y, y.transpose(0, 1).detach().numpy(), "pytorch, float64", "y")
    again = to_pytorch(net)
    assert (again.dropout, again.batch_first) == (0.25, True)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
def test_dropout_between_the_layers_of_one_layer_is_none(torch):
    assert from_pytorch(random_module(torch, "GRU", dropout=0.25)).arguments()["dropout"] == 0


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_there_and_back(torch, bias, dtype):
    module = torch.nn.Linear(D, H, bias=bias, dtype=getattr(torch, dtype))
    net = from_pytorch(module)
    x = np.random.default_rng(4).normal(size=(B, T, D)).astype(dtype)
    y, _ = net.forward(x)
    for theirs in (module, to_pytorch(net)):
        assert_close(y, theirs(torch.tensor(x)).detach().numpy(), f"pytorch, {dtype}", "y")
        assert (theirs.bias is None) == (not bias)


@pytest.mark.peers
def test_no_memory_is_shared(torch):
    module = random_module(torch, "LSTM")
    net = from_pytorch(module)
    before = net.state_dict()
    copy = to_pytorch(net)
    for p in (*module.parameters(), *copy.parameters(), *to_pytorch_state(net).values()):
        p.data.fill_(7)
    for name, p in net.params.items():
        assert same_bits(p, before[name]), name


# -------------------------------------------------------------------------------------------------------- in a row

def random_model(rng):
    linear = minilstm.Linear(D, D, dtype="float64")
    return minilstm.Sequential(
        linear, random_layer(rng, "LSTM", D, H, bidirectional=True, dtype="float64"),
        minilstm.Sequential(random_layer(rng, "GRU", 2 * H, D, dtype="float64"), linear))


@pytest.mark.peers
def test_a_model_runs_as_its_documentation_says_and_comes_back(torch):
    rng = np.random.default_rng(5)
    model = random_model(rng)
    modules = to_pytorch(model)
    assert isinstance(modules, torch.nn.ModuleList)
    data = rng.normal(size=(B, T, D))
    x = torch.tensor(data)
    for module in modules:
        x = module(x)
        x = x[0] if isinstance(x, tuple) else x
    assert_close(model.forward(data)[0], x.detach().numpy(), "pytorch, float64", "y")
    for given in (modules, list(modules), (modules[0], modules[1:])):
        back = from_pytorch(given)
        assert type(back) is minilstm.Sequential
        assert same_bits(back.forward(data)[0], model.forward(data)[0])


@pytest.mark.peers
def test_a_layer_that_stands_in_a_model_twice_stays_one(torch):
    modules = to_pytorch(random_model(np.random.default_rng(6)))
    assert modules[0] is modules[3]
    layers = from_pytorch(modules).layers
    assert layers[0] is layers[3]


# ---------------------------------------------------------------------------------------------------- state_dicts

@pytest.mark.peers
@pytest.mark.parametrize("kind", LAYERS)
def test_state_dicts_pass_both_ways(torch, kind):
    net = random_layer(np.random.default_rng(7), kind, D, H, num_layers=2, bidirectional=True, dtype="float64")
    module = random_module(torch, kind, num_layers=2, bidirectional=True)
    other = random_layer(np.random.default_rng(8), kind, D, H, num_layers=2, bidirectional=True, dtype="float64")
    module.load_state_dict(to_pytorch_state(net))
    load_pytorch_state(other, module.state_dict())
    for name, p in net.params.items():
        assert same_bits(other.params[name], p), name


@pytest.mark.peers
def test_a_model_has_the_names_of_its_modules(torch):
    rng = np.random.default_rng(9)
    model, other = (minilstm.Sequential(random_layer(rng, "LSTM", D, H), minilstm.Linear(H, D)) for _ in range(2))
    modules = to_pytorch(model)
    assert modules.state_dict().keys() == to_pytorch_state(model).keys()
    load_pytorch_state(other, modules.state_dict())
    for name, p in model.state_dict().items():
        assert same_bits(other.state_dict()[name], p), name


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


STATES = {                          # what is done to the state of an LSTM; the error; what it says
    "one bias missing": (lambda state: without(state, "bias_hh_l0"), KeyError, r"missing \['bias_hh_l0'\]"),
    "a weight missing": (lambda state: without(state, "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), KeyError,
                         r"missing \['weight_hh_l0'\]"),
    "one too many": (lambda state: state | {"weight_hr_l0": state["weight_hh_l0"]}, KeyError,
                     r"got also \['weight_hr_l0'\]"),
    "another shape": (lambda state: state | {"bias_ih_l0": state["bias_ih_l0"][:3]}, ValueError,
                      r"state\['bias_ih_l0'\]: expected .*\(16,\), got float64 \(3,\)"),
    "another dtype": (lambda state: state | {"bias_ih_l0": state["bias_ih_l0"].float()}, TypeError,
                      "nothing is cast silently"),
    "half precision": (lambda state: state | {"bias_ih_l0": state["bias_ih_l0"].bfloat16()}, ValueError,
                       "expected one of 'float32', 'float64', got 'bfloat16'"),
    "no dict": (lambda state: np.zeros(3), TypeError, r"state: expected a dict .*module.state_dict\(\), got .*ndarray"),
    "an array": (lambda state: state | {"bias_ih_l0": np.zeros(16)}, TypeError, "expected a tensor, got .*ndarray"),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", STATES)
def test_a_state_that_does_not_fit_changes_nothing(torch, name):
    spoil, error, message = STATES[name]
    net = random_layer(np.random.default_rng(10), "LSTM", D, H, dtype="float64")
    before = net.state_dict()
    with pytest.raises(error, match=message):
        load_pytorch_state(net, spoil(random_module(torch, "LSTM").state_dict()))
    for key, p in net.params.items():
        assert same_bits(p, before[key]), key


# ----------------------------------------------------------------------------------------- what is refused, and why

def pruned(module):
    from torch.nn.utils import prune

    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    return module


FROM_PYTORCH = {                    # what came, of torch.nn and torch; the error; what it says
    "another class": (lambda nn, torch: nn.Conv1d(2, 3, 1), TypeError,
                      "module: expected a torch.nn.LSTM, GRU, RNN or Linear, or a list of them, got .*Conv1d"),
    "a Sequential": (lambda nn, torch: nn.Sequential(nn.Linear(2, 3)), TypeError, "got .*Sequential"),
    "a cell": (lambda nn, torch: nn.LSTMCell(D, H), TypeError, "got .*LSTMCell"),
    "a subclass": (lambda nn, torch: type("Mine", (nn.GRU,), {})(D, H), TypeError, "got .*Mine"),
    "changed weights": (lambda nn, torch: nn.utils.parametrizations.weight_norm(nn.Linear(D, H)), TypeError,
                        "got .*ParametrizedLinear"),
    "in a list": (lambda nn, torch: [nn.LSTM(D, H), nn.ReLU()], TypeError, "got .*ReLU"),
    "nothing": (lambda nn, torch: [], ValueError, "layer: expected one layer or more, got an empty list"),
    "weight norm": (lambda nn, torch: nn.utils.parametrizations.weight_norm(nn.LSTM(D, H), "weight_hh_l0"), TypeError,
                    "got .*ParametrizedLSTM"),
    "pruned": (lambda nn, torch: pruned(nn.LSTM(D, H)), ValueError,
               r"a LSTM with its own weights, got one with \['bias_hh_l0', .*_orig.*\]: remove param"),
    "no numbers": (lambda nn, torch: nn.GRU(D, H, device="meta"), ValueError, "and give it numbers"),
    "unequal widths": (lambda nn, torch: [nn.GRU(D, H), nn.Linear(H + 1, 2)], ValueError,
                       "layers: expected input_size=4 in place 1, as the layer before it gives, got 5"),
    "no module": (lambda nn, torch: np.zeros(3), TypeError, "got .*ndarray"),
    "half precision": (lambda nn, torch: nn.LSTM(D, H, dtype=torch.bfloat16), ValueError,
                       "module: expected one of 'float32', 'float64', got 'bfloat16'"),
    "two dtypes": (lambda nn, torch: [nn.LSTM(D, H), nn.Linear(H, 1, dtype=torch.float64)], ValueError,
                   "expected one dtype"),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", FROM_PYTORCH)
def test_from_pytorch_says_why_not(torch, name):
    make, error, message = FROM_PYTORCH[name]
    with pytest.raises(error, match=message):
        from_pytorch(make(torch.nn, torch))


TO_PYTORCH = {
    "reset before": (lambda: minilstm.GRU(D, H, reset_after=False), ValueError,
                     "reset_after: expected True, got False: .*another function of the same weights"),
    "backward": (lambda: minilstm.RNN(D, H, reverse=True), ValueError,
                 "reverse: expected False, got True: .*both ways"),
    "merge": (lambda: minilstm.GRU(D, H, bidirectional=True, merge="sum"), ValueError,
              "merge: expected 'concat', got 'sum': PyTorch only concatenates"),
    "peepholes": (lambda: minilstm.LSTM(D, H, peephole=True), ValueError,
                  "peephole: expected False, got True: PyTorch has no such option"),
    "coupled gates": (lambda: minilstm.LSTM(D, H, coupled=True), ValueError, "coupled: expected False, got True"),
    "layer norm": (lambda: minilstm.GRU(D, H, layer_norm=True), ValueError, "layer_norm: expected False, got True"),
    "recurrent dropout": (lambda: minilstm.RNN(D, H, recurrent_dropout=0.1), ValueError,
                          "recurrent_dropout: expected 0.0, got 0.1"),
    "zoneout of h": (lambda: minilstm.GRU(D, H, zoneout_h=0.1), ValueError, "zoneout_h: expected 0.0, got 0.1"),
    "zoneout of c": (lambda: minilstm.LSTM(D, H, zoneout_c=0.1), ValueError, "zoneout_c: expected 0.0, got 0.1"),
    "complex": (lambda: minilstm.LSTM(D, H).astype("complex128"), ValueError, "layer: expected one of 'float32'"),
    "inside a model": (lambda: minilstm.Sequential(minilstm.LSTM(D, H, peephole=True)), ValueError, "peephole"),
    "a subclass": (lambda: type("Mine", (minilstm.LSTM,), {})(D, H), TypeError, "got .*Mine"),
    "no layer": (lambda: np.zeros(3), TypeError, "expected one of minilstm's LSTM.*got .*ndarray"),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", TO_PYTORCH)
def test_to_pytorch_says_why_not(torch, name):
    make, error, message = TO_PYTORCH[name]
    for convert in (to_pytorch, to_pytorch_state, lambda layer: load_pytorch_state(layer, {})):
        with pytest.raises(error, match=message):
            convert(make())


@pytest.mark.peers
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - LAYERS.keys()))
def test_every_kind_of_layer_is_converted_or_refused(torch, kind):
    with pytest.raises(ValueError, match="PyTorch"):
        to_pytorch(random_layer(np.random.default_rng(11), kind, D, H))


@pytest.mark.peers
def test_the_callers_torch_is_left_alone(torch):
    """The module comes to the CPU whatever the default device is, and no random number is taken."""
    net = minilstm.LSTM(D, H)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.device("meta"):
        module = to_pytorch(net)
    assert torch.equal(torch.rand(4), expected)
    assert all(same_bits(p.detach().numpy(), net.params[name]) for name, p in module.named_parameters())


@pytest.mark.peers
def test_a_parameter_that_does_not_fit_is_named(torch):
    net = minilstm.Linear(D, H)
    net.params["weight"] = np.zeros((H, D + 1), "float32")
    with pytest.raises(ValueError, match=r"params\['weight'\]: expected"):
        to_pytorch(net)


@pytest.mark.peers
def test_with_one_direction_there_is_nothing_to_merge(torch):
    to_pytorch(minilstm.LSTM(D, H, merge="mul"))


def test_the_other_libraries_are_imported_when_they_are_needed():
    program = "import sys, minilstm.interop; print({'torch', 'keras', 'onnx', 'onnxruntime'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_pytorch_there_is_a_word_on_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    net = minilstm.LSTM(D, H)
    for convert in (from_pytorch, to_pytorch, to_pytorch_state, lambda layer: load_pytorch_state(layer, {})):
        with pytest.raises(ImportError, match=r"PyTorch cannot be imported .*pip install torch"):
            convert(net)
