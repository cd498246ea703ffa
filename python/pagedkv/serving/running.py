"""The requests that a scheduler runs, as arrays: no Python object a request."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

HANDLE, PRIORITY, ARRIVAL, SHARD, NUM_PROMPT, NUM_TOKENS, NUM_COMPUTED, END = range(8)


@dataclass(frozen=True, eq=False)
class Step:
    """What to compute next. All arrays have one entry a request, shape ``[n]``."""

    handles: Ints
    num_computed_tokens: NDArray[np.int32]  # before the step: the position of its first token
    num_new_tokens: NDArray[np.int32]  # at least 1
    is_decoding: NDArray[np.bool_]  # whether its one new token is the last that was said
    speaks: NDArray[np.bool_]  # whether it has no other token to compute, so that one follows
    rows: NDArray[np.intp]  # its place among those that run


class RunningRequests:
    """The requests that hold pages, by priority and then by arrival.

    All arrays are int64 ``[n]``, one entry a request in that order. They are views: later calls change
    them, or leave them behind.
    """

    def __init__(self) -> None:
        self._table: Ints = np.empty((END + 1, 8), np.int64)  # a row a property
        self._num = 0  # columns in use
        self._is_sorted = True

    def __len__(self) -> int:
        return self._num

    @property
    def handles(self) -> Ints:
        return self._row(HANDLE)

    @property
    def shards(self) -> Ints:
        """The data-parallel shard of each."""
        return self._row(SHARD)

    @property
    def num_prompt_tokens(self) -> Ints:
        return self._row(NUM_PROMPT)

    @property
    def num_tokens(self) -> Ints:
        """Prompt and answer so far."""
        return self._row(NUM_TOKENS)

    @property
    def num_computed_tokens(self) -> Ints:
        return self._row(NUM_COMPUTED)

    @property
    def ends(self) -> Ints:
        """Tokens of prompt and longest answer."""
        return self._row(END)

    def _row(self, column: int) -> Ints:
        row: Ints = self._table[column, : self._num]
        return row

    def share(self, token_budget: int, chunk_size: int) -> Ints:
        """Tokens of each for the next step: one of those that decode, then chunks of prompts in order.

        Requires a budget of at least a token a request.
        """
        left = self.num_tokens - self.num_computed_tokens
        counts: Ints = np.minimum(left, chunk_size)
        if counts.sum() > token_budget:
            is_chunk = left > 1
            chunks = np.where(is_chunk, counts, 0)
            before = chunks.cumsum() - chunks
            room = token_budget - np.count_nonzero(~is_chunk) - before
            counts = np.where(is_chunk, np.clip(room, 0, chunks), 1)
        return counts

    def step(self, counts: Ints) -> Step:
        """The step that computes so many tokens of each, of those with any."""
        rows = np.flatnonzero(counts)
        counts = counts[rows]
        num_computed, num_tokens = self.num_computed_tokens[rows], self.num_tokens[rows]
        is_next = num_computed + 1 == num_tokens
        return Step(
            handles=self.handles[rows],
            num_computed_tokens=num_computed.astype(np.int32),
            num_new_tokens=counts.astype(np.int32),
            is_decoding=is_next & (num_tokens > self.num_prompt_tokens[rows]),
            speaks=num_computed + counts == num_tokens,
            rows=rows,
        )

    def advance(self, step: Step, said: NDArray[np.int32], eos_id: int | None) -> NDArray[np.bool_]:
        """Notes what a step has computed, and the tokens of those that spoke.

        Returns:
          Which requests of the step have come to their end. They are gone from here.
        """
        speakers = step.rows[step.speaks]
        self.num_computed_tokens[step.rows] += step.num_new_tokens
        self.num_tokens[speakers] += 1
        is_last = self.num_tokens[speakers] == self.ends[speakers]
        if eos_id is not None:
            is_last |= said == eos_id
        is_finished = np.zeros(len(step.handles), np.bool_)
        is_finished[step.speaks] = is_last
        if is_last.any():
            self._drop(step.rows[is_finished])
        return is_finished

    def ahead_of(self, end: int) -> list[int]:
        """Handles of those that have at least ``end`` tokens, and still to compute one before it."""
        is_ahead = (self.num_computed_tokens < end) & (end <= self.num_tokens)
        return list(map(int, self.handles[is_ahead]))

    def add(
        self,
        handle: int,
        *,
        priority: int,
        arrival: int,
        shard: int,
        num_prompt_tokens: int,
        num_tokens: int,
        num_computed_tokens: int,
        end: int,
    ) -> None:
        """Puts a request behind all others: `sort` next."""
        if self._num == self._table.shape[1]:
            self._table = np.pad(self._table, ((0, 0), (0, self._num)))
        if self._num:
            last = self._table[PRIORITY, self._num - 1], self._table[ARRIVAL, self._num - 1]
            self._is_sorted &= last <= (priority, arrival)
        self._table[:, self._num] = (
            handle,
            priority,
            arrival,
            shard,
            num_prompt_tokens,
            num_tokens,
            num_computed_tokens,
            end,
        )
        self._num += 1

    def sort(self) -> NDArray[np.intp]:
        """Puts the requests in order. Returns where each of them was."""
        if self._is_sorted:
            return np.arange(self._num)
        order = np.lexsort(self._table[[ARRIVAL, PRIORITY], : self._num])
        self._table[:, : self._num] = self._table[:, order]
        self._is_sorted = True
        return order

    def last_in(self, shard: int) -> int:
        """Where the last request of a shard is that has one."""
        return int(np.flatnonzero(self.shards == shard)[-1])

    def pop(self, row: int) -> tuple[int, int, int]:
        """Takes one out. Returns its priority, arrival and handle."""
        priority, arrival, handle = self._table[[PRIORITY, ARRIVAL, HANDLE], row].tolist()
        self._drop(row)
        return priority, arrival, handle

    def _drop(self, rows: int | NDArray[np.intp]) -> None:
        is_kept = np.ones(self._num, np.bool_)
        is_kept[rows] = False
        kept = self._table[:, : self._num].compress(is_kept, axis=1)
        self._num = kept.shape[1]
        self._table[:, : self._num] = kept
