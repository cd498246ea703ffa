"""The oracle with forks, and with one page only for each content if it is told so."""

import copy

from oracle import Oracle


class ForkingOracle(Oracle):
    deduplicate = False

    def rewritten(self, group, computed):
        """Pages of a row that a request which goes on after `computed` tokens writes to again."""
        if group.kind == "state":
            return 0, 1
        if group.kind == "cross":
            return 1000, 1000
        return computed // group.page_size, -(-computed // group.page_size)

    def fork(self, parent, child):
        """The copies of each group, or None."""
        before = copy.deepcopy(self.__dict__)
        computed = self.computed[child] = self.room[child] = self.computed[parent]
        self.rows[child], self.registered[child], copies = [], [], []
        shards = {page // self.shard_size for row in self.rows[parent] for page in row if page}
        self.shard = shards.pop() if len(shards) == 1 else None
        for group, row, registered in zip(
            self.groups, self.rows[parent], self.registered[parent], strict=True
        ):
            begin, end = self.rewritten(group, computed)
            own = []
            for page in row[:begin]:
                self.refs[page] = self.refs.get(page, 0) + 1
            for page in row[begin:end]:
                if page and not any(map(self.is_near, self.free)):
                    self.__dict__ = before
                    return None
                own.append(self.take() if page else 0)
            copies.append([[a, b] for a, b in zip(row[begin:end], own, strict=True) if a])
            self.rows[child].append(row[:begin] + own)
            self.registered[child].append(min(registered, begin))
        return copies

    def register(self, g, tokens, row, i):
        self.shard = row[i] // self.shard_size
        same = self.find(g, tokens, i) if self.deduplicate else None
        if same is None:
            return super().register(g, tokens, row, i)
        if self.refs[same] == 0:
            self.free.remove(same)
        self.refs[same] += 1
        self.give_back([row[i]])
        row[i] = same
