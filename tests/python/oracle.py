"""The page manager in the plainest Python: lists, tuples and linear searches, no digests.

A page is found by all the tokens up to its end. What it decides is what `CacheManager` must decide,
page id by page id.
"""


class Oracle:
    def __init__(self, num_pages, page_size, num_groups):
        self.page_size, self.num_groups = page_size, num_groups
        self.free = list(range(1, num_pages))  # coldest first
        self.refs = dict.fromkeys(self.free, 0)
        self.cached = []  # (group, tokens up to the page's end, page), oldest first
        self.rows = {}  # request -> one list of pages a group
        self.computed = {}
        self.registered = {}

    def find(self, group, tokens):
        return next((p for g, t, p in self.cached if (g, t) == (group, tokens)), None)

    def match(self, request, tokens):
        if request in self.rows:
            return 0
        ends = range(self.page_size, len(tokens), self.page_size)
        length = 0
        for end in ends:
            if any(self.find(g, tokens[:end]) is None for g in range(self.num_groups)):
                break
            length = end
        return length

    def allocate(self, request, tokens, num_new, num_cached=0):
        is_new = request not in self.rows
        ends = range(self.page_size, num_cached + 1, self.page_size)
        hits = [[self.find(g, tokens[:end]) for end in ends] for g in range(self.num_groups)]
        rows = hits if is_new else self.rows[request]
        base = num_cached if is_new else self.computed[request]
        want = -(-(base + num_new) // self.page_size)
        need = sum(max(0, want - len(row)) for row in rows)
        need += sum(self.refs[page] == 0 for row in hits for page in row)
        if need > len(self.free):
            return False
        for page in (page for row in hits for page in row):
            if self.refs[page] == 0:
                self.free.remove(page)
            self.refs[page] += 1
        for row in rows:
            while len(row) < want:
                page = self.free.pop(0)
                self.cached = [entry for entry in self.cached if entry[2] != page]
                self.refs[page] = 1
                row.append(page)
        if is_new:
            self.registered[request] = num_cached // self.page_size
        self.rows[request], self.computed[request] = rows, base
        return True

    def commit(self, request, tokens, num_computed):
        self.computed[request] = num_computed
        full = num_computed // self.page_size
        for group, row in enumerate(self.rows[request]):
            for i in range(self.registered[request], full):
                self.cached.append((group, tokens[: (i + 1) * self.page_size], row[i]))
        self.registered[request] = max(self.registered[request], full)

    def release(self, request):
        for page in (page for row in self.rows.pop(request) for page in reversed(row)):
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self.free.append(page)

    def reset(self):
        if self.rows:
            return False
        self.cached = []
        return True
