"""What managers of either side are made from."""

import random
from dataclasses import dataclass
from typing import Any

SPECS = {
    "full": "FullAttentionSpec",
    "sliding": "SlidingWindowSpec",
    "chunked": "ChunkedLocalAttentionSpec",
    "mamba": "MambaSpec",
}
FIELDS = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}

LAYOUTS = ("F", "S", "C", "M", "FS", "SF", "FC", "CF", "FM", "MF", "FFS", "SSF", "FSSS", "FCC")
LAYOUTS_WITHOUT_CACHING = (*LAYOUTS, "FF", "FSC", "MFS", "CSFM")
PAGE_SIZES = (1, 2, 3, 4, 8, 16, 32)


@dataclass(frozen=True)
class Group:
    """Layers of one kind: `reach` is the window or the chunk of those that have one."""

    kind: str
    page_size: int
    reach: int = 0

    def spec(self, interface: Any) -> Any:
        """The group as the interface module of either side has it."""
        spec = getattr(interface, SPECS[self.kind])
        if self.kind == "mamba":
            layers = spec(page_size=self.page_size, shapes=((2, 3),), dtype="float32")
        else:
            sizes = {"page_size": self.page_size, "num_kv_heads": 1, "head_size": 8}
            reach = {FIELDS[self.kind]: self.reach} if self.kind in FIELDS else {}
            layers = spec(**sizes, dtype="float32", use_mla=False, **reach)
        return interface.CacheGroupSpec(layers)


@dataclass(frozen=True)
class Config:
    """What a manager is made from, and the shards that its callers name."""

    groups: tuple[Group, ...]
    num_pages: int
    max_model_len: int
    enable_caching: bool = True
    use_eagle: bool = False
    data_parallel_size: int | None = None

    @property
    def page_size(self) -> int:
        """Tokens of the pages that requests are hashed in."""
        return min(group.page_size for group in self.groups)

    def manager(self, manager: Any, interface: Any) -> Any:
        """A manager of either side."""
        return manager(
            num_pages=self.num_pages,
            kv_cache_groups=[group.spec(interface) for group in self.groups],
            max_model_len=self.max_model_len,
            enable_caching=self.enable_caching,
            use_eagle=self.use_eagle,
        )


def random_config(
    rng: random.Random, layout: str | None = None, enable_caching: bool | None = None
) -> Config:
    """Any mix of groups that EasyDeL takes. Pools are small, so that pages are evicted."""
    if enable_caching is None:
        enable_caching = rng.random() < 0.85
    if layout is None:
        layout = rng.choice(LAYOUTS if enable_caching else LAYOUTS_WITHOUT_CACHING)
    page_size = rng.choice(PAGE_SIZES)
    max_model_len = page_size * rng.randint(4, 24) + rng.randrange(page_size)
    window = rng.choice([2, page_size, 2 * page_size, rng.randint(2, 6 * page_size)])
    kinds = {
        "F": Group("full", page_size),
        "S": Group("sliding", page_size, max(window, 2)),
        "C": Group("chunked", page_size, page_size * rng.randint(1, 5)),
        "M": Group("mamba", page_size * (max_model_len // page_size + 1)),
    }
    num_pages = rng.choice([8, 12, 16, 24, 40, 80, 200]) * (2 if len(layout) > 1 else 1)
    num_shards = rng.choice([None, None, None, 1, 2, 4])
    if num_shards and rng.random() < 0.2:
        num_pages += 1  # the shards do not divide it
    return Config(
        groups=tuple(kinds[letter] for letter in layout),
        num_pages=min(num_pages, 200),
        max_model_len=max_model_len,
        enable_caching=enable_caching,
        use_eagle="C" not in layout and rng.random() < 0.3,
        data_parallel_size=num_shards,
    )
