"""Threads, processes and contexts of every kind: equal results, and nobody waits for ever."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV, cross_val_score

import skdl
from skdl.engine.train import train
from skdl.model_selection import gathering

ROOT = Path(skdl.__file__).parents[1]
RATES = [0.005, 0.02, 0.1]


@pytest.fixture(scope="module")
def scores(net, data):
    """The training score of a fit for each seed."""
    return [net(random_state=seed).fit(*data).score(*data) for seed in range(6)]


@pytest.fixture
def fit(net, data):
    return lambda seed: net(random_state=seed).fit(*data).score(*data)


# --- the end of the process ------------------------------------------------------------------------------------------

SLOW_TO_LET_GO = """
import time
import skdl.model_selection.together
from skdl.model_selection.gathering import Gathering, Limits

class Data:
    def __del__(self):
        time.sleep(0.5)
        print("let go", flush=True)

def task(data=None):
    done = []
    return lambda data=Data(): done.append(1)

Gathering(Limits(1, 1, 1), print).start_task(task, print, None)
time.sleep(0.2)
"""


def test_process__when_a_done_task_still_lets_its_data_go__then_waits_for_it():
    ended = subprocess.run([sys.executable, "-c", SLOW_TO_LET_GO], capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert (ended.returncode, ended.stdout) == (0, "let go\n")


# --- threads of the user ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 6])
def test_threads__when_the_users_own__then_as_without(in_threads, fit, scores, n_threads):
    with skdl.train_together() as run:
        results = in_threads(*(lambda seed=seed: fit(seed) for seed in range(n_threads)))

    assert results == scores[:n_threads]
    assert sum(stack.n_models for stack in run.report_) == n_threads


def test_threads__when_the_main_one_fits_too__then_as_without(in_threads, fit, scores):
    with skdl.train_together(), ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(fit, seed) for seed in range(1, 6)]
        assert fit(0) == scores[0]
        assert [future.result(20) for future in futures] == scores[1:]


def test_threads__when_idle_between_fits__then_the_others_do_not_wait_for_them(fit, scores):
    release = threading.Event()

    def idle():
        fit(1)
        release.wait(20)
        return fit(2)

    with skdl.train_together(), ThreadPoolExecutor(1) as pool:
        future = pool.submit(idle)
        assert [fit(0) for _ in range(3)] == scores[:1] * 3
        release.set()
        assert future.result(20) == scores[2]


def test_threads__when_each_searches__then_as_without(in_threads, net, data):
    def search():
        return (
            GridSearchCV(net(), {"learning_rate": RATES}, cv=2, n_jobs=None).fit(*data).cv_results_["mean_test_score"]
        )

    expected = search()
    with skdl.train_together():
        for result in in_threads(search, search, search):
            assert_array_equal(result, expected)


def test_threads__when_each_has_a_context_of_its_own__then_as_without(in_threads, net, data):
    def search():
        with skdl.train_together():
            return cross_val_score(net(), *data, cv=4)

    expected = cross_val_score(net(), *data, cv=4)
    for _ in range(5):
        for result in in_threads(search, search, search, search):
            assert_array_equal(result, expected)


@pytest.mark.parametrize("work", ["fit", "search"])
def test_threads__when_a_context_ends_before_one_that_joined_it__then_that_goes_on(in_threads, net, data, work):
    """Contexts of several threads are one gathering: the first one's end is not the others'."""
    joined, first_is_over, trains = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            trains.set()
            first_is_over.wait(1)

        def on_fit_task_end(self, estimator, context):
            pass

    def first():
        with skdl.train_together():
            joined.wait(10)
            trains.wait(10)
        first_is_over.set()

    def second():
        time.sleep(0.05)
        estimator = net().set_callbacks(Slow())
        with skdl.train_together(max_models=2):
            joined.set()
            if work == "fit":
                return [estimator.fit(*data).score(*data)]
            return cross_val_score(estimator, *data, cv=5, error_score="raise").tolist()

    expected = [net().fit(*data).score(*data)] if work == "fit" else cross_val_score(net(), *data, cv=5).tolist()
    assert in_threads(first, second)[1] == expected


def test_threads__when_an_error_ends_anothers_search__then_ones_own_goes_on(in_threads, net, data):
    begun = threading.Event()

    def failing_scorer(estimator, X, y):
        begun.wait(10)
        raise ZeroDivisionError

    def fails():
        with skdl.train_together(), pytest.raises(ZeroDivisionError):
            cross_val_score(net(), *data, cv=2, scoring=failing_scorer, error_score="raise")

    def goes_on():
        with skdl.train_together():
            begun.set()
            return [cross_val_score(net(), *data, cv=10, error_score="raise").tolist() for _ in range(4)]

    expected = cross_val_score(net(), *data, cv=10).tolist()
    with skdl.train_together(max_models=2):
        assert in_threads(fails, goes_on)[1] == [expected] * 4


def test_threads__when_one_outlives_the_context__then_its_fit_is_none_the_worse(fit, scores):
    results = []
    begun = threading.Event()

    def work():
        begun.set()
        try:
            results.append(fit(0))
        except Exception as error:
            results.append(error)

    for _ in range(10):
        thread = threading.Thread(target=work, daemon=True)
        with skdl.train_together():
            thread.start()
            begun.wait(5)
            time.sleep(0.003)
        thread.join(10)
        assert not thread.is_alive()
    assert results == scores[:1] * 10


def test_threads__when_an_error_ends_the_context__then_those_of_others_go_on(fit, scores, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def train_late(jobs, **options):
        begun.set()
        ended.wait(10)
        return train(jobs, **options)

    def fails():
        with skdl.train_together():
            future = pool.submit(fit, 0)
            begun.wait(10)
            raise ZeroDivisionError(future)

    monkeypatch.setattr(gathering, "train", train_late)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ZeroDivisionError) as caught:
            fails()
        ended.set()
        assert caught.value.args[0].result(20) == scores[0]


# --- threads inside a task: the task runs, but waits for them --------------------------------------------------------


@pytest.fixture(params=["nothing", "a thread"])
def at_work(request):
    """What uses a part of a processor all the time, as a progress bar may."""
    ended = threading.Event()

    def work():
        while not ended.wait(0.02):
            end = time.thread_time() + 0.005
            while time.thread_time() < end:
                sum(range(1000))

    thread = threading.Thread(target=work if request.param == "a thread" else ended.wait, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_task__when_it_waits_for_threads_that_fit__then_they_are_trained(fit, scores, at_work):
    def task(seed):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(fit, [seed, seed + 1]))

    with skdl.train_together():
        results = joblib.Parallel()(joblib.delayed(task)(seed) for seed in [0, 2, 4])

    assert [score for pair in results for score in pair] == scores


def test_scorer__when_it_waits_for_threads_that_fit__then_they_are_trained(net, data, fit, scores):
    def scorer(estimator, X, y):
        with ThreadPoolExecutor(2) as pool:
            seen.append(list(pool.map(fit, range(2))))
        return 0.5

    seen = []
    with skdl.train_together():
        net(max_epochs=1, early_stopping=True, scoring=scorer).fit(*data)

    assert seen == [[scores[0], scores[1]]]


@pytest.mark.parametrize("how", ["argument", "config"])
def test_task__when_it_uses_the_threading_backend__then_it_is_trained(fit, scores, how):
    def task(seed):
        if how == "argument":
            return joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(fit)(seed + i) for i in range(2))
        with joblib.parallel_config(backend="threading", n_jobs=2):
            return joblib.Parallel()(joblib.delayed(fit)(seed + i) for i in range(2))

    with skdl.train_together():
        results = joblib.Parallel()(joblib.delayed(task)(seed) for seed in [0, 2, 4])

    assert [score for pair in results for score in pair] == scores


def test_task__when_it_holds_a_lock_that_others_want__then_they_have_their_turn(fit, scores):
    lock = threading.Lock()

    def task(seed):
        with lock:
            return fit(seed)

    with skdl.train_together():
        assert joblib.Parallel()(joblib.delayed(task)(seed) for seed in range(4)) == scores[:4]


@pytest.mark.parametrize("backend", ["sequential", "threading"])
def test_body__when_another_backend_is_named__then_it_is_used(fit, scores, backend):
    with skdl.train_together(), joblib.parallel_config(backend=backend, n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(6)) == scores


# --- tasks handed out in unusual ways --------------------------------------------------------------------------------


@pytest.mark.parametrize("max_models", [1, 100])
def test_iterable__when_it_fits_itself__then_as_without(net, data, fit, scores, max_models):
    """Joblib draws further tasks in whichever thread has just ended one, and holds a lock meanwhile."""

    def tasks():
        for _ in range(10):
            yield joblib.delayed(lambda score: score + fit(1))(fit(0))

    with skdl.train_together(max_models=max_models):
        assert joblib.Parallel(n_jobs=2)(tasks()) == [scores[0] + scores[1]] * 10


@pytest.mark.parametrize("max_models", [1, 100])
def test_iterable__when_it_searches_itself__then_as_without(net, data, fit, scores, max_models):
    """A call of joblib within the handing out of another one, in one thread."""
    expected = cross_val_score(net(), *data, cv=2)[0]

    def tasks():
        for _ in range(5):
            yield joblib.delayed(lambda score: score + fit(1))(cross_val_score(net(), *data, cv=2)[0])

    with skdl.train_together(max_models=max_models):
        assert joblib.Parallel(n_jobs=2)(tasks()) == [expected + scores[1]] * 5


@pytest.mark.parametrize(
    "options", [{"pre_dispatch": "all"}, {"pre_dispatch": 1}, {"batch_size": 2}, {"n_jobs": 3}], ids=str
)
def test_parallel__when_called_otherwise__then_as_without(fit, scores, options):
    with skdl.train_together(max_models=2):
        assert joblib.Parallel(**options)(joblib.delayed(fit)(seed) for seed in range(6)) == scores


def test_parallel__when_managed_and_called_twice__then_as_without(fit, scores):
    with skdl.train_together(), joblib.Parallel() as parallel:
        for _ in range(2):
            assert parallel(joblib.delayed(fit)(seed) for seed in range(3)) == scores[:3]


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_parallel__when_results_are_generated__then_as_without(fit, scores, kind):
    with skdl.train_together():
        results = list(joblib.Parallel(n_jobs=2, return_as=kind)(joblib.delayed(fit)(seed) for seed in range(4)))

    assert sorted(results) == sorted(scores[:4])


def test_parallel__when_there_are_no_tasks__then_none(fit, scores):
    with skdl.train_together():
        assert joblib.Parallel()([]) == []
        assert joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(2)) == scores[:2]


# --- contexts --------------------------------------------------------------------------------------------------------


def test_context__when_nested__then_as_without(fit, scores, net, data):
    with skdl.train_together(max_models=3):
        with skdl.train_together(max_models=100):
            with skdl.train_together():
                assert joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(6)) == scores
            assert fit(0) == scores[0]
        assert joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(6)) == scores


def test_context__when_opened_in_every_task__then_as_without(fit, scores):
    def task(seed):
        with skdl.train_together():
            return joblib.Parallel()(joblib.delayed(fit)(seed + i) for i in range(2))

    with skdl.train_together():
        results = joblib.Parallel()(joblib.delayed(task)(seed) for seed in [0, 2, 4])
    assert [score for pair in results for score in pair] == scores


def test_context__when_used_again_and_again__then_as_without(fit, scores):
    for _ in range(20):
        with skdl.train_together() as run:
            assert joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(2)) == scores[:2]
        assert sum(stack.n_models for stack in run.report_) == 2


def test_context__when_used_as_decorator__then_as_without(fit, scores):
    @skdl.train_together()
    def run():
        return joblib.Parallel()(joblib.delayed(fit)(seed) for seed in range(2))

    assert run() == run() == scores[:2]


def test_context__when_in_a_thread__then_as_in_the_main_one(in_threads, net, data):
    def run():
        with skdl.train_together() as together_run:
            search = GridSearchCV(net(), {"learning_rate": RATES}, cv=3).fit(*data)
        return search.cv_results_["mean_test_score"], sum(stack.n_models for stack in together_run.report_)

    expected = GridSearchCV(net(), {"learning_rate": RATES}, cv=3).fit(*data).cv_results_["mean_test_score"]
    ((result, n_models),) = in_threads(run)
    assert_array_equal(result, expected)
    assert n_models == 10


def test_gathering__when_another_thread_is_slow__then_patience_has_an_end(in_threads, fit, scores):
    """A thread that has fitted and lives on holds others up for a fraction of a second at most."""
    release = threading.Event()

    def idle():
        fit(0)
        release.wait(20)

    with skdl.train_together():
        thread = threading.Thread(target=idle, daemon=True)
        thread.start()
        started = time.monotonic()
        in_threads(lambda: fit(1))
        assert time.monotonic() - started < 10
        release.set()
        thread.join(10)


# --- Optuna ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_optuna__when_n_jobs_is_4__then_every_trial_as_without(net, data):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)
        if trial.number == 3:
            raise optuna.TrialPruned
        return cross_val_score(net(learning_rate=rate), *data, cv=2).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    with skdl.train_together() as run:
        study.optimize(objective, n_trials=8, n_jobs=4)

    assert len(study.trials) == 8
    for trial in study.trials:
        if trial.number != 3:
            expected = cross_val_score(net(learning_rate=trial.params["learning_rate"]), *data, cv=2).mean()
            assert trial.value == expected
    assert sum(stack.n_models for stack in run.report_) == 14


def test_optuna__when_a_trial_fails__then_its_error_and_no_thread_waits(net, data):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)

    def objective(trial):
        net().fit(*data)
        if trial.number == 2:
            raise ZeroDivisionError
        return net().fit(*data).score(*data)

    with skdl.train_together(), pytest.raises(ZeroDivisionError):
        optuna.create_study().optimize(objective, n_trials=8, n_jobs=4)


# --- processes: all in one interpreter of their own, whose start takes seconds ---------------------------------------

PRELUDE = """
import json, os, signal, sys, threading, time, warnings
import joblib, numpy as np, torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
import skdl

torch.set_num_threads(1)
X, y = make_classification(60, 4, n_informative=3, n_redundant=0, random_state=0)

def net(**parameters):
    return skdl.MLPClassifier(**{**dict(hidden_layer_sizes=(8,), max_epochs=3, batch_size=16, learning_rate=0.02,
        n_members=1, early_stopping=False, numeric_embedding=None, dtype="float64", device="cpu", random_state=0),
        **parameters})
"""


def run_script(script, seconds):
    """The JSON that a Python process prints last."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate(timeout=10)
        pytest.fail(f"hung after {out!r}; {err}")
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def test_loky__when_inside_or_around_the_context__then_as_without(limit):
    """Worker processes know nothing of the context they were started in, and may open their own."""
    script = """
    def inside():
        with skdl.train_together() as run:
            scores = cross_val_score(net(), X, y, cv=4).tolist()
        return scores, sum(stack.n_models for stack in run.report_)

    def n_routes():
        from skdl.engine import dispatch
        return len(dispatch._routes)

    def main():
        result = {"plain": cross_val_score(net(), X, y, cv=4).tolist()}
        with joblib.parallel_config(backend="loky", n_jobs=2):
            result["around"] = joblib.Parallel()(joblib.delayed(inside)() for _ in range(2))
        with skdl.train_together() as run:
            with joblib.parallel_config(backend="loky", n_jobs=2):
                result["inside"] = cross_val_score(net(), X, y, cv=4).tolist()
                result["routes"] = joblib.Parallel()(joblib.delayed(n_routes)() for _ in range(2))
            result["named"] = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(inside)() for _ in range(2))
            result["together"] = cross_val_score(net(), X, y, cv=4).tolist()
            result["models"] = sum(stack.n_models for stack in run.report_)
            # A task of the context that uses processes.
            result["in tasks"] = joblib.Parallel()(
                joblib.delayed(lambda: joblib.Parallel(n_jobs=2, backend="loky")(
                    joblib.delayed(inside)() for _ in range(2)))() for _ in range(2))
        print(json.dumps(result))

    main()
    """
    with limit(150):
        result, _ = run_script(script, 140)

    plain = result["plain"]
    assert result["around"] == result["named"] == [[plain, 4]] * 2
    # Joblib has no worker processes below threads: these joined the context they are in.
    assert [[scores for scores, _ in task] for task in result["in tasks"]] == [[plain] * 2] * 2
    assert result["inside"] == result["together"] == plain
    assert result["routes"] == [1, 1]
    assert result["models"] == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork__when_in_a_task_or_while_others_wait__then_the_child_trains_alone(limit):
    """A forked child has the context's lists but none of its threads."""
    script = """
    def in_child():
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            net().fit(X, y)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    with skdl.train_together():
        result = {"body": in_child()}
        result["tasks"] = joblib.Parallel()(joblib.delayed(in_child)() for _ in range(2))
    print(json.dumps(result))
    """
    with limit(90):
        result, _ = run_script(script, 80)

    assert result == {"body": 0, "tasks": [0, 0]}


INTERRUPT = """
import faulthandler, itertools

outcomes = []

class Interrupts:
    # Ctrl-C at the end of the third epoch of this attempt, once: stacks in two threads may count at the same time,
    # which only the counter's own step survives.
    ended, current = {}, None
    def __init__(self): self.attempt = Interrupts.current
    def __sklearn_clone__(self): return self
    def setup(self, estimator, context): pass
    def teardown(self, estimator, context): pass
    def on_fit_task_begin(self, estimator, context): pass
    def on_fit_task_end(self, estimator, context):
        if next(Interrupts.ended[self.attempt]) == 3:
            Interrupts.at = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def attempt(name, body, **limits):
    Interrupts.current, Interrupts.ended[name], Interrupts.at = name, itertools.count(1), time.monotonic()
    faulthandler.dump_traceback_later(20, exit=True)
    before = set(threading.enumerate())
    print("begin", name, file=sys.stderr, flush=True)
    try:
        with skdl.train_together(**limits):
            body()
        ended = "none"
    except BaseException as error:
        ended = type(error).__name__
    seconds = time.monotonic() - Interrupts.at
    end = time.monotonic() + 3
    def rest():
        return [thread.name for thread in threading.enumerate() if thread not in before]
    while rest() and time.monotonic() < end:
        time.sleep(0.01)
    outcomes.append([name, ended, seconds, rest()])
    print(*outcomes[-1], file=sys.stderr, flush=True)
    faulthandler.cancel_dump_traceback_later()

def own_loss(output, target):
    return torch.nn.functional.cross_entropy(output, target, reduction="none")

def loud(**parameters):
    return net(max_epochs=10**7, **parameters).set_callbacks(Interrupts())

def threads(*functions):
    def quietly(function):
        try:
            function()
        except Exception:
            pass
    started = [threading.Thread(target=quietly, args=(function,), daemon=True) for function in functions]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()

warnings.simplefilter("ignore")
rates = {"learning_rate": [0.01, 0.02, 0.03]}
attempt("search", lambda: GridSearchCV(loud(), rates, cv=3).fit(X, y))
attempt("search, one at a time", lambda: GridSearchCV(loud(), rates, cv=3).fit(X, y), max_models=1)
attempt("search, error_score", lambda: GridSearchCV(loud(), rates, cv=3, error_score=0.0).fit(X, y))
attempt("nested", lambda: cross_val_score(GridSearchCV(loud(), rates, cv=2), X, y, cv=3))
attempt("nested, few", lambda: cross_val_score(GridSearchCV(loud(), rates, cv=2), X, y, cv=5), max_models=2)
attempt("nested, little", lambda: cross_val_score(GridSearchCV(loud(), rates, cv=2), X, y, cv=3), max_memory=1)
attempt("no stacks", lambda: GridSearchCV(loud(loss=own_loss), rates, cv=3).fit(X, y))
attempt("threads", lambda: threads(*[lambda: loud().fit(X, y)] * 3))
attempt("fit", lambda: loud().fit(X, y))
attempt("fit without a stack", lambda: loud(n_members=4, loss=own_loss).fit(X, y))
print(json.dumps(outcomes))
"""


def test_interrupt__when_training__then_ends_promptly_and_no_thread_is_left(limit):
    with limit(120):
        outcomes, err = run_script(INTERRUPT, 110)

    # In the main thread Ctrl-C ends the fit with what it has, as outside.
    expected = [[name, "none" if name.startswith("fit") else "KeyboardInterrupt", []] for name, _, _, _ in outcomes]
    assert [[name, ended, rest] for name, ended, _, rest in outcomes] == expected
    assert max(seconds for _, _, seconds, _ in outcomes) < 8
    assert "terminate" not in err


def test_exit__when_a_thread_still_trains_at_the_end__then_the_process_ends_in_peace(limit):
    """Daemon threads inside torch when the interpreter goes: "terminate called without an active exception"."""
    script = """
    begun = threading.Event()

    class Announces:
        def setup(self, estimator, context): pass
        def teardown(self, estimator, context): pass
        def on_fit_task_begin(self, estimator, context): begun.set()
        def on_fit_task_end(self, estimator, context): pass

    def fails():
        begun.wait(20)
        raise ZeroDivisionError

    def search():
        return GridSearchCV(net(max_epochs=50).set_callbacks(Announces()), {"l1": [0.0, 0.1]}, cv=3).fit(X, y)

    try:
        with skdl.train_together(max_models=2):
            joblib.Parallel()(joblib.delayed(function)() for function in [search, search, fails])
    except ZeroDivisionError:
        print(json.dumps("error"))
    """
    with limit(90):
        result, err = run_script(script, 80)

    assert result == "error"
    assert "terminate" not in err
