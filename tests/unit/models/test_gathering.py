import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models.gathering import Gatherer


class Network:
    """Doubles what it is given; notes how many images came together; the first run waits for ``go``."""

    def __init__(self, bad=None, error=None, blocked=True):
        self.sizes = []
        self.error = error or ValueError("a bad image")
        self.started, self.go = threading.Event(), threading.Event()
        self.bad = bad
        if not blocked:
            self.go.set()

    def __call__(self, images):
        self.sizes.append(len(images))
        self.started.set()
        assert self.go.wait(10)
        if self.bad is not None and (images == self.bad).any():
            raise self.error
        return [2 * images, images.sum(axis=1, keepdims=True)]


def image(value, shape=(1, 3)):
    return np.full(shape, value, np.float32)


def meet(network, gatherer, values):
    """The first runs alone; the others line up meanwhile, and go on together. Outcomes in the order of ``values``."""

    def ask(value):
        try:
            return gatherer.run(image(value))
        except (ValueError, RuntimeError, KeyboardInterrupt) as error:
            return error

    with ThreadPoolExecutor(len(values)) as pool:
        first = pool.submit(ask, values[0])
        assert network.started.wait(10)
        others = [pool.submit(ask, value) for value in values[1:]]
        for _ in range(1000):
            if len(gatherer._waiting) == len(others):
                break
            threading.Event().wait(0.005)
        network.go.set()
        return [one.result(10) for one in (first, *others)]


def test_a_lone_request_runs_at_once_and_alone():
    network = Network(blocked=False)
    ((doubled, total),) = Gatherer(network, 8, (ValueError,)).run(image(3))
    assert network.sizes == [1]
    assert doubled.tolist() == [[6, 6, 6]] and total.tolist() == [[9]]


def test_those_that_line_up_share_the_next_run_up_to_the_limit():
    network = Network()
    outcomes = meet(network, Gatherer(network, 4, (ValueError,)), [1, 2, 3, 4, 5, 6])
    assert network.sizes == [1, 4, 1]
    assert [outcome[0][0][0, 0] for outcome in outcomes] == [2, 4, 6, 8, 10, 12]


def test_a_batch_of_one_caller_is_split_to_the_limit():
    network = Network(blocked=False)
    answers = Gatherer(network, 4, (ValueError,)).run(np.arange(18, dtype=np.float32).reshape(6, 3))
    assert network.sizes == [4, 2]
    assert [float(answer[0][0, 0]) for answer in answers] == [0, 6, 12, 18, 24, 30]


def test_a_bad_one_fails_alone():
    network = Network(bad=3)
    outcomes = meet(network, Gatherer(network, 8, (ValueError,)), [1, 2, 3, 4])
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, False, True, False]


def test_another_shape_does_not_spoil_the_run():
    network = Network(blocked=False)
    gatherer = Gatherer(network, 8, (ValueError,))
    with ThreadPoolExecutor(2) as pool:
        wide, narrow = pool.submit(gatherer.run, image(1, (1, 5))), pool.submit(gatherer.run, image(1))
        assert wide.result(10)[0][0].shape == (1, 5) and narrow.result(10)[0][0].shape == (1, 3)


def test_an_interrupt_leaves_nobody_waiting():
    network = Network(bad=3, error=KeyboardInterrupt())
    first, *others = meet(network, Gatherer(network, 8, (ValueError,)), [1, 2, 3, 4])
    assert first[0][0].tolist() == [[2, 2, 2]]
    assert sorted(type(one).__name__ for one in others) == ["KeyboardInterrupt", "RuntimeError", "RuntimeError"]
