"""A run that is stopped at any moment and taken up again ends with the same bits; and files that cannot be written."""
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minilstm
from helpers import same_bits
from minilstm import training
from test_fit import a_model, a_task

PACKAGE = Path(minilstm.__file__).resolve().parents[1]


class Stopped(Exception):
    pass


def with_each_call(before):
    """The default loss, which calls ``before`` first; in a checkpoint it goes by the same name."""
    def mean_squared_error(*arguments, **options):
        before()
        return minilstm.mean_squared_error(*arguments, **options)

    mean_squared_error.__qualname__ = "mean_squared_error"
    return mean_squared_error


def stopping_after(calls):
    """A loss that fails after so many calls, as if the process had ended there."""
    left = iter(range(calls))

    def stop():
        if next(left, None) is None:
            raise Stopped

    return with_each_call(stop)


def a_run(path=None, loss=minilstm.mean_squared_error, epochs=6, every=None, patience=5, **options):
    """One with all that changes while it goes on: dropout, momentum, a plateau, the best weights -> model, history"""
    rng = np.random.default_rng(0)
    x, target = a_task(rng, dtype="float32")
    model = minilstm.Sequential(minilstm.LSTM(1, 4, num_layers=2, dropout=0.3), minilstm.Linear(4, 1))
    history = minilstm.fit(model, x, target, epochs=epochs, batch_size=5, accumulate=2, loss=loss, seed=3,
                           optimizer=minilstm.Adam(0.05), validation=a_task(rng, dtype="float32"), patience=patience,
                           schedule=training.WarmUp(4, training.Plateau(0.5, patience=0)), checkpoint=path,
                           checkpoint_steps=every, **options)
    return model, history


@pytest.fixture(scope="module")
def uninterrupted():
    return a_run()


def assert_the_same(found, expected):
    (model, history), (other, other_history) = found, expected
    assert history.numbers() == other_history.numbers()
    others = other.state_dict()
    assert all(same_bits(p, others[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize("every", [None, 1, 2])
def test_a_run_goes_on_with_the_same_bits(tmp_path, uninterrupted, every):
    """Stopped again and again after a random number of batches, within epochs too."""
    rng, stops = np.random.default_rng(), 0
    for _ in range(100):
        try:
            found = a_run(tmp_path / "run", stopping_after(int(rng.integers(8, 20))), every=every)
            break
        except Stopped:
            stops += 1
    assert stops >= 2
    assert_the_same(found, uninterrupted)
    assert os.listdir(tmp_path) == ["run"]


def test_a_run_that_is_over_is_only_read(tmp_path, uninterrupted):
    a_run(tmp_path / "run")
    assert_the_same(a_run(tmp_path / "run", stopping_after(0)), uninterrupted)


def test_more_epochs_prolong_a_run(tmp_path, uninterrupted):
    a_run(tmp_path / "run", epochs=2)
    assert_the_same(a_run(tmp_path / "run"), uninterrupted)


def test_a_run_that_a_callback_ended_stays_so(tmp_path):
    _, history = a_run(tmp_path / "run", callbacks=[lambda epoch: epoch.number == 2])
    _, again = a_run(tmp_path / "run")
    assert len(history) == len(again) == 2


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoint import a_run, with_each_call
print("ready", flush=True)
a_run({path!r}, with_each_call(lambda: print(".", flush=True)), epochs={epochs}, every=1, patience={epochs})
"""


def kill_until_done(path, epochs, most):
    """-> how often the process was killed by SIGKILL, each time after at most so many batches, and then at a random
    moment of the next milliseconds: in a step, while it writes, between the two."""
    rng, kills = np.random.default_rng(), 0
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path), epochs=epochs)
    for _ in range(300):
        process = subprocess.Popen([sys.executable, "-c", script], cwd=PACKAGE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        for _ in range(rng.integers(1, most)):
            process.stdout.readline()                                       # at once and empty when it is over
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL
        kills += 1
    raise AssertionError("it never came to its end")


def check_kills(tmp_path, epochs, most, least):
    kills = kill_until_done(tmp_path / "run", epochs, most)
    assert kills >= least
    found = a_run(tmp_path / "run", stopping_after(0), epochs=epochs, patience=epochs)
    assert_the_same(found, a_run(epochs=epochs, patience=epochs))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_run_survives_being_killed(tmp_path):
    check_kills(tmp_path, epochs=20, most=80, least=1)                      # 6 batches an epoch, one of validation


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_run_survives_being_killed_again_and_again(tmp_path):
    check_kills(tmp_path, epochs=100, most=50, least=8)


# ---------------------------------------------------------------------------------------------- what cannot be written

def test_a_full_disk_costs_no_epoch(tmp_path, monkeypatch, uninterrupted):
    """The room for the third file is not there: the first two epochs are in the second, and the run can go on."""
    calls, real = [], os.posix_fallocate

    def fallocate(*arguments):
        calls.append(arguments)
        if len(calls) == 3:                             # before the first epoch, after it, after the second
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with pytest.raises(OSError, match="No space left"):
        a_run(tmp_path / "run")
    monkeypatch.undo()
    seen = []
    found = a_run(tmp_path / "run", callbacks=[lambda epoch: seen.append(epoch.number)])
    assert seen == [3, 4, 5, 6]
    assert_the_same(found, uninterrupted)


def test_no_room_at_all_is_known_before_the_first_epoch(tmp_path):
    """A process that may not write files of more than 4,000 bytes; a loss that cannot be computed."""
    resource = pytest.importorskip("resource")
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_checkpoint import a_run, stopping_after
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
a_run({str(tmp_path / "run")!r}, loss=stopping_after(0))
"""
    done = subprocess.run([sys.executable, "-B", "-c", script], cwd=PACKAGE, capture_output=True, text=True)
    assert resource and "OSError: [Errno 27] File too large" in done.stderr, done.stderr
    assert not list(tmp_path.glob("*.next")) and not list(tmp_path.glob(".*"))


def test_the_room_taken_first_is_enough_for_all_that_comes(tmp_path):
    """The first file has neither what the optimizer keeps nor the best weights; the place of the next one has."""
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    path, sizes = tmp_path / "run", []

    def look(epoch):
        sizes.append((path.stat().st_size, (tmp_path / ".run.next").stat().st_size))

    minilstm.fit(a_model("float32", H=150), x, target, epochs=3, validation=(x, target), patience=3, checkpoint=path,
                 callbacks=[look])
    sizes.append((path.stat().st_size, 0))
    assert all(later <= room for (later, _), (_, room) in zip(sizes[1:], sizes))


@pytest.mark.parametrize("before, after", [(False, True), (True, False), (True, "other")])
def test_other_validation_data_need_another_file(tmp_path, before, after):
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    data = {False: None, True: (x, target), "other": (x, target + 1)}
    options = {"epochs": 2, "checkpoint": tmp_path / "run"}
    minilstm.fit(a_model("float32"), x, target, validation=data[before], **options)
    with pytest.raises(ValueError, match="validation: expected .*, with which the run"):
        minilstm.fit(a_model("float32"), x, target, validation=data[after], **options)


def test_numbers_of_numpy_are_numbers(tmp_path):
    def loss(y, target, mask):
        value, dy = minilstm.mean_squared_error(y, target, mask)
        return np.float32(value), dy

    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    minilstm.fit(a_model("float32"), x, target, epochs=2, loss=loss, seed=np.int64(1), patience=np.int64(2),
                 validation=(x, target), clip_norm=np.float32(2), checkpoint=tmp_path / "run", checkpoint_steps=1)


def test_a_folder_that_cannot_be_written_to_is_known_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "missing" / "run", tmp_path / "file" / "run"):
        with pytest.raises(OSError):
            a_run(path, loss=stopping_after(0))


@pytest.mark.parametrize("change, words", [
    ({"seed": 4}, "seed: expected 3, with which the run in .*run began, got 4"),
    ({"optimizer": minilstm.SGD()}, r"optimizer: expected Adam\(rate=0.001.* got SGD"),
    ({"clip_norm": 2.0}, "clip_norm: expected 1.0, .* got 2.0"),
    ({"loss": minilstm.huber}, "loss: expected mean_squared_error, .* got huber"),
    ({"clip_norm": None}, "clip_norm: expected 1.0, .* got None"),
    ({"x": np.ones((8, 6, 1), "float32")}, r"x: expected float32 \(8, 6, 1\) with content .*, with which the run"),
    ({"weights": np.full((8, 6), 0.5, "float32")}, "weights: expected None, .* got float32 .*; for another run take"),
])
def test_another_run_needs_another_file(tmp_path, change, words):
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    given = {"x": x, "target": target, "epochs": 1, "seed": 3, "checkpoint": tmp_path / "run"}
    minilstm.fit(a_model("float32"), **given)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ValueError, match=words):
        minilstm.fit(a_model("float32"), **(given | change))
    assert (tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("change, words", [
    ({"recurrent_dropout": 0.2}, "model: expected ... recurrent_dropout=0.0 ..., .* got ... recurrent_dropout=0.2"),
    ({"reverse": True}, "model: expected ... reverse=False ..., with which"),
    ({"hidden_size": 6}, "model: expected ... hidden_size=5"),
    ({"seed": 9}, "model, seed of noise: expected 0, .* got 9"),
])
def test_another_model_needs_another_file(tmp_path, change, words):
    x, target = (array.repeat(5, axis=2) for array in a_task(np.random.default_rng(1), N=8, dtype="float32"))
    first, other = (minilstm.LSTM(**{"input_size": 5, "hidden_size": 5} | given) for given in ({}, change))
    target = np.zeros((8, 6, other.output_size), "float32") if "hidden_size" in change else target
    run = {"epochs": 1, "checkpoint": tmp_path / "run"}
    minilstm.fit(first, x, target[:, :, :5], **run)
    with pytest.raises(ValueError, match=words):
        minilstm.fit(other, x, target, **run)


def test_a_call_that_fails_at_once_leaves_no_file_in_the_way_of_the_next(tmp_path):
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    run = {"epochs": 1, "checkpoint": tmp_path / "run"}
    for change, error in (({"clip_norm": -1}, ValueError), ({"loss": minilstm.softmax_cross_entropy}, ValueError),
                          ({"checkpoint": tmp_path}, ValueError), ({"checkpoint": 5}, ValueError)):
        with pytest.raises(error):
            minilstm.fit(a_model("float32"), x, target, **run | change)
    assert not list(tmp_path.iterdir())
    minilstm.fit(a_model("float32"), x, target, **run)


def test_a_refused_run_leaves_the_room_of_the_one_that_goes_on(tmp_path):
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")

    def refused(epoch):
        with pytest.raises(ValueError, match="seed"):
            minilstm.fit(a_model("float32"), x, target, epochs=2, seed=1, checkpoint=tmp_path / "run")
        assert (tmp_path / ".run.next").exists()

    minilstm.fit(a_model("float32"), x, target, epochs=2, checkpoint=tmp_path / "run", callbacks=[refused])


def test_as_many_epochs_as_there_are_change_nothing(tmp_path):
    x, target = a_task(np.random.default_rng(1), N=8, dtype="float32")
    model, again = a_model("float32"), a_model("float32")
    history = minilstm.fit(model, x, target, epochs=3, checkpoint=tmp_path / "run")
    for epochs in (3, 1):
        assert minilstm.fit(again, x, target, epochs=epochs, checkpoint=tmp_path / "run") == history
    assert all(map(same_bits, model.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("content", [b"", b"something else", b"model"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "run"
    path.write_bytes(content)
    if content == b"model":
        minilstm.save(path, minilstm.Linear(1, 1))
    before = path.read_bytes()
    with pytest.raises(minilstm.FormatError, match="expected a minilstm checkpoint of version 2, got one with"):
        a_run(path)
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path):
    a_run(tmp_path / "run", epochs=1)
    content = (tmp_path / "run").read_bytes()
    (tmp_path / "run").write_bytes(content[:-10])
    with pytest.raises(minilstm.FormatError):
        a_run(tmp_path / "run")


def test_checkpoints_in_time_and_on_the_disk_go_together(tmp_path):
    """A model that computes its states twice, with a layer of quantiles in it, and a run in a file."""
    rng = np.random.default_rng(2)
    x, target = a_task(rng, N=8, dtype="float32")
    results = []
    for path, stops in ((tmp_path / "run", (1, 2)), (None, (2,))):
        for epochs in stops:
            model = minilstm.Checkpointed(minilstm.Sequential(
                minilstm.LSTM(1, 4), minilstm.Linear(4, 3), minilstm.NonCrossing(3, quantiles=3)))
            minilstm.fit(model, x, target, epochs=epochs, loss=minilstm.quantile_loss, checkpoint=path)
        results.append(model.state_dict())
    assert all(same_bits(p, results[1][name]) for name, p in results[0].items())
