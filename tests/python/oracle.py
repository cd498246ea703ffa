"""The page manager in the plainest Python: lists, tuples, linear searches and copies, no digests.

A page is found by all the tokens up to its end. A prefix can be shared if every page that is read
after it is cached, tried from the longest down. Page ids must be those of `CacheManager`; 0 is none.
"""

import copy
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    kind: str  # full, window, chunk, state, checkpoints or cross
    page_size: int
    size: int = 0  # of the window or chunk

    def first_read(self, num_computed):
        if self.kind == "window":
            return max(0, num_computed - self.size + 1)
        if self.kind == "chunk":
            return num_computed // self.size * self.size
        if self.kind == "checkpoints":
            return max(0, num_computed - 1)
        return 0

    def row_length(self, num_tokens, num_lookahead, num_encoder_tokens):
        if self.kind == "state":
            return 1
        if self.kind == "cross":
            return -(-num_encoder_tokens // self.page_size)
        return -(-(num_tokens + num_lookahead * (self.kind != "checkpoints")) // self.page_size)

    def first_written(self, num_tokens):
        return (num_tokens - 1) // self.page_size if self.kind == "checkpoints" else 0

    def pages_of_prefix(self, length, redone):
        start = length - redone  # where a request goes on; gives the pages it needs cached
        if self.kind in ("state", "cross"):
            return None
        if self.kind == "checkpoints":
            return [start // self.page_size - 1] if start else None
        return range(self.first_read(start) // self.page_size, length // self.page_size)


class Oracle:
    def __init__(self, num_pages, groups, max_model_len, eagle=False, num_shards=1):
        self.groups, self.max_model_len = groups, max_model_len
        self.unit = math.lcm(*(group.page_size for group in groups))
        self.redone = self.unit if eagle else 0
        self.free = list(range(1, num_pages))  # coldest first
        self.refs = dict.fromkeys(self.free, 0)
        self.cached = []  # (group, tokens up to the page's end, page), oldest first
        self.rows = {}  # request -> one list of pages a group
        self.computed, self.room, self.registered = {}, {}, {}
        self.shard_size, self.shard = num_pages // num_shards, None  # None: pages of any shard

    def is_near(self, page):
        return self.shard in (None, page // self.shard_size)

    def find(self, g, tokens, page):
        key = (g, tokens[: (page + 1) * self.groups[g].page_size])
        return next((p for *k, p in self.cached if (*k,) == key and self.is_near(p)), None)

    def can_share(self, tokens, length, redone):
        for g, group in enumerate(self.groups):
            pages = group.pages_of_prefix(length, redone)
            if pages is None or any(self.find(g, tokens, page) is None for page in pages):
                return False
        return True

    def match(self, request, tokens):
        longest = 0 if request in self.rows else (len(tokens) - 1) // self.unit * self.unit
        for length in range(longest, 0, -self.unit):
            if self.can_share(tokens, length, self.redone):
                return length - self.redone
        return 0

    def allocate(self, request, tokens, num_new, num_cached=0, num_lookahead=0, num_encoder=0):
        before = copy.deepcopy(self.__dict__)
        if request not in self.rows:
            self.adopt(request, tokens, num_cached)
        shards = {page // self.shard_size for row in self.rows[request] for page in row if page}
        self.shard = shards.pop() if len(shards) == 1 else self.shard
        computed = self.computed[request]
        num_lookahead = min(num_lookahead, self.max_model_len - computed - num_new)
        for group, row in zip(self.groups, self.rows[request], strict=True):
            needed = min(group.first_read(computed) // group.page_size, len(row))
            self.give_back(reversed(row[:needed]))
            row[:needed] = [0] * needed
        for group, row in zip(self.groups, self.rows[request], strict=True):
            needed = min(group.first_read(computed) // group.page_size, len(row))
            length = group.row_length(computed + num_new, num_lookahead, num_encoder)
            row += [0] * (length - len(row))
            for i in range(max(needed, group.first_written(computed + num_new)), len(row)):
                if row[i] == 0 and not any(map(self.is_near, self.free)):
                    self.__dict__ = before
                    return False
                row[i] = row[i] or self.take()
        self.room[request] = max(self.room[request], computed + num_new + num_lookahead)
        return True

    def adopt(self, request, tokens, num_cached):
        self.rows[request], self.computed[request] = [], num_cached
        self.registered[request] = [num_cached // group.page_size for group in self.groups]
        self.room[request] = 0
        for g, group in enumerate(self.groups):
            needed = group.first_read(num_cached) // group.page_size
            rest = range(needed, num_cached // group.page_size)
            row = [0] * needed + [self.find(g, tokens, i) for i in rest]
            self.rows[request].append(row)
            for page in filter(None, row):
                if self.refs[page] == 0:
                    self.free.remove(page)
                self.refs[page] += 1

    def take(self):
        page = self.free.pop(list(map(self.is_near, self.free)).index(True))
        self.cached = [entry for entry in self.cached if entry[2] != page]
        self.refs[page] = 1
        return page

    def give_back(self, pages):
        for page in filter(None, pages):
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self.free.append(page)

    def commit(self, request, tokens, num_computed):
        self.computed[request] = num_computed
        for g, (group, row) in enumerate(zip(self.groups, self.rows[request], strict=True)):
            full = min(num_computed // group.page_size, len(row))
            for i in range(self.registered[request][g], full):
                end = (i + 1) * group.page_size
                is_state = group.kind == "checkpoints" and end == num_computed
                if row[i] and (is_state or group.kind in ("full", "window", "chunk")):
                    self.register(g, tokens[:end], row, i)
            self.registered[request][g] = max(self.registered[request][g], full)

    def register(self, g, tokens, row, i):
        self.cached.append((g, tokens, row[i]))

    def release(self, request):
        for row in self.rows.pop(request):
            self.give_back(reversed(row))

    def reset(self):
        held = any(page for rows in self.rows.values() for row in rows for page in row)
        self.cached = self.cached if held else []
        return not held
