"""Requests that meet are computed in one run: a GPU answers eight images in little more time than one.

No request waits for company. One that finds the network idle runs at once, alone; while it runs others line up, and the
first of them takes along all that stand there (Triton calls this dynamic batching, with a queue delay of zero). So a
single request costs what it costs without this, and the busier the service, the larger the batches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Compute = Callable[[Float32], Sequence[Float32]]


@dataclass(slots=True)
class _Request:
    """``image`` [1, …]; then ``answer`` (one array per output, each [1, …]) or ``error``."""

    image: Float32
    answer: tuple[Float32, ...] | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None


class Gatherer:
    """Safe to call from many threads; one of them computes at a time, and no thread of its own is started."""

    def __init__(self, compute: Compute, limit: int, failures: tuple[type[Exception], ...]) -> None:
        """``compute`` takes [N, …] with N ≤ ``limit``; ``failures`` is what it may raise."""
        self._compute = compute
        self._limit = limit
        self._failures = failures
        self._turn = threading.Lock()
        self._waiting: deque[_Request] = deque()

    def run(self, images: Float32) -> list[tuple[Float32, ...]]:
        """The answers for ``images`` [N, …], one by one. Raises what ``compute`` raised for one of them."""
        requests = [_Request(image[None]) for image in images]
        self._waiting.extend(requests)
        for request in requests:
            while not request.done:
                with self._turn:
                    if not request.done:
                        self._next_run()
        answers = []
        for request in requests:
            if request.error is not None:
                raise request.error
            assert request.answer is not None
            answers.append(request.answer)
        return answers

    def _next_run(self) -> None:
        together = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
        try:
            if len(together) == 1 or not self._computed(together):
                for request in together:
                    self._alone(request)
        finally:
            for request in together:  # an interrupt came through: whoever waits must not wait for ever
                if not request.done:
                    request.error = RuntimeError("the run was interrupted")

    def _computed(self, together: Sequence[_Request]) -> bool:
        """All in one run. ``False`` if one of them is at fault, or they are too many for the memory."""
        if len({request.image.shape for request in together}) > 1:
            return False
        try:
            outputs = self._compute(np.concatenate([request.image for request in together]))
        except self._failures:
            return False
        for number, request in enumerate(together):
            request.answer = tuple(values[number : number + 1] for values in outputs)
        return True

    def _alone(self, request: _Request) -> None:
        try:
            request.answer = tuple(self._compute(request.image))
        except self._failures as error:
            request.error = error
