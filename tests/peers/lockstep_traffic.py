"""Random requests, scheduled at random, for a pair of managers."""

import random
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from easydel_core import SamplingParams
from lockstep_pair import Hit, Pair


@dataclass(eq=False)
class Job:
    """A request and what the scheduler knows of it besides."""

    request: Any
    length: int  # it ends here
    hint: int | None  # the shard it should be in
    is_delayed: bool  # its pages are shown to others later
    num_guesses: deque[int] = field(default_factory=deque)  # of each step that is on its way

    @property
    def num_missing(self) -> int:
        """Tokens that are known and not computed."""
        return int(self.request.num_tokens - self.request.num_computed_tokens)


class Traffic:
    """Makes requests and schedules them, each step at random.

    Attributes:
      waiting: Requests without pages: new ones and preempted ones.
      running: Requests with pages.
    """

    def __init__(self, pair: Pair, rng: random.Random) -> None:
        self.pair, self.rng = pair, rng
        self.config = pair.config
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.max_running = rng.choice([2, 4, 8])
        self.num_steps_ahead = rng.choice([0, 0, 1, 2])
        self.max_guesses = rng.choice([0, 0, 1, 4])
        self.num_lookahead = rng.choice([0, 0, 1, 5])
        self.num_words = rng.choice([2, 50])
        self.has_images = rng.random() < 0.3 and self.config.groups[0].kind != "mamba"
        pair.gives_copies = rng.random() < 0.25
        self.may_delay = rng.random() < 0.3
        self.texts: deque[list[int]] = deque([[]], maxlen=12)
        self.num_requests = 0

    def run(self, num_ops: int) -> None:
        """At least `num_ops` calls, and what it takes to finish all requests after that."""
        while self.pair.num_ops < num_ops:
            self.step()
        for job in [*self.running, *self.waiting]:
            self.finish(job)
        self.pair.reset_prefix_cache()
        self.pair.compare_pages()

    def step(self) -> None:
        chance = self.rng.random()
        if len(self.waiting) < 4 and chance < 0.15:
            self.arrive()
        elif chance < 0.20 and self.running:
            job = self.rng.choice(self.running)
            self.pair.get_num_common_prefix_pages(
                job.request, self.rng.randint(1, len(self.running))
            )
        elif chance < 0.22 and self.running:
            self.preempt(self.rng.choice(self.running))
        elif chance < 0.25 and self.running + self.waiting:
            self.finish(self.rng.choice(self.running + self.waiting))
        elif chance < 0.252 or (chance < 0.3 and not self.running):
            self.pair.reset_prefix_cache()
        elif self.waiting and len(self.running) < self.max_running and chance < 0.5:
            self.admit(self.waiting[0] if chance < 0.45 else self.rng.choice(self.waiting))
        elif self.running:
            self.advance(self.rng.choice(self.running))

    # --- what happens to a request ----------------------------------------------------------------

    def arrive(self) -> None:
        rng = self.rng
        text = rng.choice(self.texts)
        prompt = text[: rng.choice([len(text), rng.randint(0, len(text))])]
        prompt = prompt[: self.config.max_model_len - 2]
        room = self.config.max_model_len - 1 - len(prompt)
        num_more = rng.randint(1, min(room, rng.choice([1, 4, 64, room])))
        prompt = prompt + [rng.randrange(self.num_words) for _ in range(num_more)]
        if rng.random() < 0.5:
            self.texts.append(prompt)
        images = []
        if self.has_images and len(prompt) >= self.config.page_size and rng.random() < 0.6:
            images = [self.image() for _ in range(rng.randint(1, 2))]
        params = rng.choice([None, SamplingParams(), SamplingParams()])
        if not images and rng.random() < 0.1:
            params = SamplingParams(prompt_logprobs=1)
        live = {job.request.request_id for job in self.waiting + self.running}
        names = (f"r{(self.num_requests + i) % 16}" for i in range(len(live) + 1))
        name = next(name for name in names if name not in live)
        request = self.pair.easydel.request.EngineRequest(
            name, prompt, params, None, arrival_time=0.0, mm_features=images
        )
        self.num_requests += 1
        self.waiting.append(
            Job(
                request,
                length=rng.randint(len(prompt) + 1, self.config.max_model_len),
                hint=rng.choice([None, 0, 1, 2, 3]),
                is_delayed=self.may_delay and not images and rng.random() < 0.4,
            )
        )

    def image(self) -> SimpleNamespace:
        return SimpleNamespace(
            modality=self.rng.choice(["image", "video"]), mm_hash=self.rng.choice(["a", "b"])
        )

    def shard(self, job: Job) -> dict[str, int | None]:
        if self.rng.random() < 0.03:
            return {"dp_shard_hint": job.hint, "data_parallel_size": None}
        hint = self.rng.randrange(-1, 9) if self.rng.random() < 0.1 else job.hint
        return {"dp_shard_hint": hint, "data_parallel_size": self.config.data_parallel_size}

    def admit(self, job: Job) -> None:
        """Looks the prompt up in the cache and makes room for its first chunk."""
        request, shard = job.request, self.shard(job)
        hit: Hit | None = self.pair.get_computed_pages(request, **shard)
        if self.rng.random() < 0.1:
            return
        num_cached = hit.num_tokens
        arguments = {}
        if num_cached == 0 and self.rng.random() < 0.1:
            # Somebody else computes the beginning.
            hit, num_cached = None, self.rng.randrange(request.num_tokens)
            arguments["num_new_computed_tokens"] = num_cached
        elif num_cached == 0 and self.rng.random() < 0.1:
            hit = self.pair.no_hit()
        num_new = self.chunk(request.num_tokens - num_cached)
        if self.allocate(job, num_new, hit, shard, **arguments):
            request.num_computed_tokens = num_cached + num_new
            self.waiting.remove(job)
            self.running.append(job)
            request.status = self.pair.easydel.request.EngineRequestStatus.RUNNING
            if job.num_missing == 0:
                self.launch(job, 0)
        elif self.running and self.rng.random() < 0.3:
            self.preempt(self.running[-1])

    def advance(self, job: Job) -> None:
        """Schedules the next chunk or tokens of a running request, or takes in what a step said."""
        request = job.request
        is_ahead = len(job.num_guesses) > self.num_steps_ahead
        if is_ahead or (job.num_guesses and self.pair.is_too_far_ahead(request)):
            self.deliver(job)
            return
        room = self.config.max_model_len - request.num_computed_tokens
        num_guesses = 0
        num_new = job.num_missing
        if num_new > 1:
            num_new = self.chunk(num_new)
        else:
            num_guesses = min(self.rng.randint(0, self.max_guesses), room - 1)
            num_new = 1 + num_guesses
        if room < 1:
            if job.num_guesses:
                self.deliver(job)
            else:
                self.finish(job)
        elif self.allocate(job, num_new, None, self.shard(job)):
            request.num_computed_tokens += num_new
            if job.num_missing <= 0:
                self.launch(job, num_guesses)
        else:
            victims = [self.running[-1], self.rng.choice(self.running)]
            self.preempt(self.rng.choice(victims))

    def allocate(
        self, job: Job, num_new: int, hit: Hit | None, shard: dict[str, int | None], **more: int
    ) -> bool:
        if self.rng.random() < 0.02:
            job.is_delayed = False
        return self.pair.allocate_slots(
            job.request,
            num_new,
            hit,
            num_lookahead_tokens=self.num_lookahead,
            delay_cache_pages=job.is_delayed,
            **shard,
            **more,
        )

    def chunk(self, num_tokens: int) -> int:
        if self.rng.random() < 0.5:
            return num_tokens
        return self.rng.randint(1, num_tokens)

    def launch(self, job: Job, num_guesses: int) -> None:
        """The step is on its way that says the next token."""
        job.num_guesses.append(num_guesses)
        if self.num_steps_ahead == 0:
            self.deliver(job)

    def deliver(self, job: Job) -> None:
        """The step has said how many guesses were right, and one more token."""
        request = job.request
        num_guesses = job.num_guesses.popleft()
        num_right = self.rng.randint(0, num_guesses)
        request.num_computed_tokens -= num_guesses - num_right
        num_tokens = min(num_right + 1, job.length - request.num_tokens)
        request.append_output_token_ids(
            [self.rng.randrange(self.num_words) for _ in range(num_tokens)]
        )
        if not job.is_delayed and self.rng.random() < 0.5:
            self.pair.cache_pages(request, min(request.num_computed_tokens, request.num_tokens - 1))
        elif job.is_delayed and self.rng.random() < 0.2:
            job.is_delayed = False
            self.pair.cache_pages(request, min(request.num_computed_tokens, request.num_tokens))
        if request.num_tokens >= job.length:
            self.finish(job)

    def preempt(self, job: Job) -> None:
        self.pair.free(job.request)
        job.request.num_computed_tokens = 0
        job.request.status = self.pair.easydel.request.EngineRequestStatus.PREEMPTED
        job.num_guesses.clear()
        self.running.remove(job)
        self.waiting.insert(0, job)

    def finish(self, job: Job) -> None:
        if self.rng.random() < 0.7:
            self.texts.append(list(job.request.all_token_ids))
        steps = [self.pair.free, self.pair.free_page_hashes]
        if self.rng.random() < 0.1:
            steps.reverse()
        for step in steps:
            step(job.request)
        (self.running if job in self.running else self.waiting).remove(job)
