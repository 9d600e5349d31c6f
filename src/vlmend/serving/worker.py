"""The one thread that drives a model for a server: requests come in, tokens and replies go out.

Requests to views that may share a batch (`takes_company`: mends of words, pictures and states) come into the batch that
is under way and leave it on their own, whatever their mend, length and temperature. The others (mends of weights,
logits and whole replies; families whose rows cannot come and go) are answered in batches of one view. A request that
fails beside others is asked again alone, so that it fails alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch

from vlmend.core.conversation import Reply
from vlmend.core.images import blurred_image
from vlmend.errors import BatchProblem, ModelProblem, SampleError
from vlmend.models.decoding.live import Live, LiveRequest, forget_requests, takes_company
from vlmend.models.decoding.loop import out_of_memory
from vlmend.models.editing.inputs import forget_filtered
from vlmend.models.vlm import VLM
from vlmend.serving.jobs import Answer, Job, Piece, Told
from vlmend.serving.limits import Refusal
from vlmend.serving.proof import Served, check_fired, proof_of

__all__ = ["Worker"]

TURN = 32
"""Tokens that rows under way write between two batches of requests that cannot join them."""
WHOLE = 16
"""Requests of such a batch."""


class Worker:
    """Drives one model.

    Args:
        served: Views of it, by name.
        most: Requests that may wait or be under way; one more is refused.
    """

    replicas = None

    def __init__(self, served: Mapping[str, Served], most: int) -> None:
        self._views: Mapping[str, VLM] = {name: one.view for name, one in served.items()}
        self._most = most
        self._arriving: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock, self._held, self._closing = threading.Lock(), 0, False
        self._waiting: list[Job] = []
        self._running: dict[int, Job] = {}
        self._live = Live(next(iter(self._views.values())))
        self._turns = 0
        self._thread = threading.Thread(target=self._work, daemon=True, name="vlmend-worker")
        self._thread.start()

    @property
    def held(self) -> int:
        """Requests waiting and under way."""
        return self._held

    @property
    def running(self) -> int:
        """Requests whose replies are being written, row by row."""
        return len(self._running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    @property
    def health(self) -> Mapping[str, Any]:
        return {"status": "ok" if self.alive else "closing"}

    def submit(self, job: Job) -> None:
        """Hand over a request.

        Raises:
            Refusal: Too many are held (429), or the worker is closed (503).
        """
        if not self.alive:
            raise Refusal(503, "The server is closing.", "closing")
        with self._lock:
            if self._held >= self._most:
                raise Refusal(429, f"{self._held} requests are held already: ask again later.", "busy")
            self._held += 1
        self._arriving.put(job)

    def close(self) -> None:
        """Stop after the token, or the batch, under way; who still waits is told."""
        self._closing = True
        self._arriving.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._closing:
            try:
                self._round()
            except Exception as problem:  # a bug of ours: nobody waits for ever, and the next request is answered
                self._end_all(problem)
        self._end_all(Refusal(503, "The server is closing.", "closing"))

    def _round(self) -> None:
        self._receive()
        self._let_go()
        self._answer_whole()
        self._admit()
        if self._running:
            self._advance()
        elif self._live.rows:  # of those who are gone
            self._live.clear()

    def _end_all(self, problem: Exception) -> None:
        jobs, self._running, self._waiting = [*self._running.values(), *self._waiting], {}, []
        self._live.clear()
        for job in jobs:
            self._tell(job, problem)

    def _receive(self) -> None:
        """Take what has come; wait where there is nothing else to do."""
        idle = not self._waiting and not self._running
        while True:
            try:
                job = self._arriving.get(block=idle)
            except queue.Empty:
                return
            if job is None:
                return
            self._waiting.append(job)
            idle = False

    def _let_go(self) -> None:
        """Free the rows, and the places in the queue, of those who are gone."""
        for number, job in [*self._running.items()]:
            if job.gone:
                self._live.drop(number)
                del self._running[number]
                self._release()
        for job in [job for job in self._waiting if job.gone]:
            self._waiting.remove(job)
            self._release()

    def _answer_whole(self) -> None:
        """One batch of requests that cannot share rows, when it is their turn."""
        whole = [job for job in self._waiting if not takes_company(self._view(job))]
        if not whole or (self._running and self._turns < TURN):
            return
        self._turns, first = 0, whole[0]
        view = self._view(first)
        alike = [job for job in whole if (self._view(job), job.sampling) == (view, first.sampling)]
        # equal requests of a batch draw differently, and each must draw as it would alone
        batch = alike[:1] if first.sampling.temperature > 0 else alike[:WHOLE]
        for job in batch:
            self._waiting.remove(job)
        self._generate(batch)

    def _admit(self) -> None:
        """Requests that fit come in, in the order in which they arrived."""
        batch: list[Job] = []
        for job in [job for job in self._waiting if takes_company(self._view(job))]:
            try:
                job.request = job.request or LiveRequest.of(self._view(job), job.conversation, job.sampling)
            except Exception as problem:
                self._waiting.remove(job)
                if isinstance(problem, SampleError):
                    self._tell(job, problem)
                else:
                    self._generate([job])
                continue
            if not self._live.fits(job.request, [one.request for one in batch if one.request]):
                break
            batch.append(job)
            self._waiting.remove(job)
        if batch and not self._read(batch):
            for job in batch:
                if len(batch) == 1 or not self._read([job]):
                    self._generate([job])

    def _read(self, batch: list[Job]) -> bool:
        """Whether requests could be read together."""
        try:
            numbers = self._live.admit([job.request for job in batch if job.request])
        except Exception as problem:
            self._shrink(problem)
            return False
        finally:
            self._forget(batch)
        for number, job in zip(numbers, batch, strict=True):
            assert job.request is not None
            try:  # before anybody hears a word of it
                check_fired(self._view(job), job.request.asked, self._live.fired(number), 1)
            except ModelProblem as problem:
                self._live.drop(number)
                self._tell(job, problem)
            else:
                self._running[number] = job
        return True

    def _advance(self) -> None:
        """One token for every row."""
        try:
            self._live.choose()
            self._hand_over()
            self._live.step()
            self._turns += 1
        except Exception as problem:  # a broken row, or no memory: each begins again, alone
            self._shrink(problem)
            self._live.clear()
            jobs, self._running = [*self._running.values()], {}
            for job in jobs:
                self._generate([job])

    def _hand_over(self) -> None:
        """Tell who waits what has been said."""
        for number, job in [*self._running.items()]:
            job.first_s = job.first_s or time.monotonic() - job.arrived
            if self._live.done(number):
                reply = self._live.reply(number, time.monotonic() - job.arrived)
                self._live.drop(number)
                del self._running[number]
                self._finish(job, reply)
            elif job.stream:
                self._say(job, Piece(self._live.text(number)))

    def _generate(self, batch: list[Job]) -> None:
        """Replies by the view's own `generate`, which says whose fault it is where one has none."""
        first = batch[0]
        outcomes: list[Reply | Exception]
        try:
            outcomes = [*self._view(first).generate([job.conversation for job in batch], first.sampling)]
        except BatchProblem as problem:
            outcomes = [one for one in problem.outcomes if isinstance(one, Reply | Exception)]
        except Exception as problem:
            outcomes = [problem] * len(batch)
        finally:
            self._forget(batch)
        for job, one in zip(batch, outcomes, strict=True):
            job.first_s = job.first_s or time.monotonic() - job.arrived
            self._finish(job, one)

    def _finish(self, job: Job, outcome: Reply | Exception) -> None:
        """Tell the reply, unless a mend that was meant for it never acted."""
        if isinstance(outcome, Exception):
            self._tell(job, outcome)
            return
        view = self._view(job)
        try:
            asked = job.request.asked if job.request else view.rewritten([job.conversation])[0]
            check_fired(view, asked, outcome.fired, outcome.new_tokens)
            answer = Answer(outcome, proof_of(view, job.conversation, asked, outcome))
        except Exception as problem:
            self._tell(job, problem)
        else:
            self._tell(job, answer)

    def _view(self, job: Job) -> VLM:
        return self._views[job.name]

    def _forget(self, batch: list[Job]) -> None:
        """Nothing of a request is kept for others."""
        forget_requests(self._view(batch[0]))
        forget_filtered()
        blurred_image.cache_clear()

    def _tell(self, job: Job, outcome: Answer | Exception) -> None:
        self._release()
        self._say(job, outcome)

    def _say(self, job: Job, told: Told) -> None:
        try:
            job.tell(told)
        except RuntimeError:  # its event loop is closed: nobody hears it any more
            job.gone = True

    def _release(self) -> None:
        with self._lock:
            self._held -= 1

    def _shrink(self, problem: Exception) -> None:
        """Batches become smaller for good where memory ran out."""
        if isinstance(problem, RuntimeError) and out_of_memory(problem):
            room = self._live.view.workings.room(self._live.view.reader.model.device)
            room.tokens = max(1, room.tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
