"""What a replay can be asked for."""

from dataclasses import dataclass

from pagedkv import Retention, RetentionRange


@dataclass(frozen=True)
class ReplayOptions:
    """How the requests of a trace are served.

    Attributes:
      page_size: Tokens of a page.
      max_running: Most requests that hold pages at a time.
      token_budget: Most tokens of a step.
      max_output_tokens: Answers are cut there; as long as traced if None.
      max_model_len: Longest prompt and answer that the model takes.
      data_parallel_size: Shards of the pool.
      hash_algorithm: See ``hash_algorithms``. The hits are the same with any.
      free_order: ``"lru"`` or ``"uncached_first"``.
      deduplicate: Whether pages that were computed twice are given back.
      prompt_priority: Priority, 0 to 100, on which prompts' first ``prompt_tokens`` tokens are kept.
      prompt_tokens: How many of each prompt's tokens that is for; 0 for none.
      prompt_ttl: For how many ms of the trace's time, after their last use; for ever if None.
      output_priority: Priority of pages that answers fill.
    """

    page_size: int = 16
    max_running: int = 256
    token_budget: int = 8192
    max_output_tokens: int | None = None
    max_model_len: int = 1 << 20
    data_parallel_size: int = 1
    hash_algorithm: str = "pagedkv_xxh3"
    free_order: str = "lru"
    deduplicate: bool = False
    prompt_priority: int = 50
    prompt_tokens: int = 0
    prompt_ttl: int | None = None
    output_priority: int = 50

    def __post_init__(self) -> None:
        for name in ("page_size", "max_running", "token_budget", "max_model_len"):
            self._check(name, 1)
        for name in ("max_output_tokens", "data_parallel_size", "prompt_ttl"):
            self._check(name, 1)
        self._check("prompt_tokens", 0)
        if self.token_budget < self.max_running:
            raise ValueError(
                f"[ReplayOptions] token_budget must be at least max_running {self.max_running}, "
                f"got {self.token_budget}"
            )
        self.retention()

    def _check(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ValueError(f"[ReplayOptions] {name} must be at least {least}, got {value}")

    def retention(self) -> Retention | None:
        """On what the pages of a request are kept; None if as all others."""
        ranges = []
        if self.prompt_tokens:
            ranges.append(
                RetentionRange(
                    0, self.prompt_tokens, priority=self.prompt_priority, ttl=self.prompt_ttl
                )
            )
        if not ranges and self.output_priority == 50:
            return None
        return Retention(ranges=ranges, decode_priority=self.output_priority)
