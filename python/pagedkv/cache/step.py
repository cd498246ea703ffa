"""Which tokens a step has, and where their keys and values go."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# What EasyDeL 0.1.3 puts in the fields of a phase that a step has not.
_ABSENT = 10**7


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PagedAttentionMetadata:
    """One step: the prompt of one request, one new token of several, or both.

    The names are EasyDeL 0.1.3's. A pytree of five leaves. Which phases a step has follows from
    shapes alone: the fields of an absent one are scalars.

    Attributes:
      prefill_length: int32, shape ``[]``: tokens of the prompt, padding aside.
      prefill_pos: int32, shape ``[tokens]``: their positions. Only the shape is read here.
      prefill_page_table: int32, shape ``[pages]``: the page of tokens ``i * page_size ...``.
      generate_pos: int32, shape ``[batch]``: the position of the new token of each row, -1 for a
        row that is idle.
      generate_page_table: int32, shape ``[batch, pages]``: the pages of the request of each row.

    Example:
      >>> import jax.numpy as jnp
      >>> from pagedkv import PagedAttentionMetadata
      >>> step = PagedAttentionMetadata.for_prefill(5, jnp.int32([1, 2, 0]), num_tokens=8)
      >>> step.has_prefill, step.has_generate
      (True, False)
    """

    prefill_length: Any
    prefill_pos: Any
    prefill_page_table: Any
    generate_pos: Any
    generate_page_table: Any

    @classmethod
    def for_prefill(
        cls, length: ArrayLike, page_table: ArrayLike, *, num_tokens: int
    ) -> "PagedAttentionMetadata":
        """Makes a step that computes a prompt, padded to ``num_tokens``, and nothing else.

        Args:
          length: int32, shape ``[]``: tokens of the prompt.
          page_table: int32, shape ``[pages]``: their pages, in order.
          num_tokens: Tokens of the padded prompt.
        """
        return cls._init_decode_state().replace(
            prefill_length=jnp.asarray(length, jnp.int32),
            prefill_pos=jnp.arange(num_tokens, dtype=jnp.int32),
            prefill_page_table=page_table,
        )

    @classmethod
    def for_generate(cls, pos: ArrayLike, page_table: ArrayLike) -> "PagedAttentionMetadata":
        """Makes a step that computes one token for each row, and nothing else.

        Args:
          pos: int32, shape ``[batch]``: the position of each, -1 for an idle row.
          page_table: int32, shape ``[batch, pages]``: the pages of each request.
        """
        return cls._init_decode_state().replace(generate_pos=pos, generate_page_table=page_table)

    @classmethod
    def _init_decode_state(cls) -> "PagedAttentionMetadata":
        """Makes a step without tokens."""
        absent = jnp.asarray(_ABSENT, jnp.int32)
        return cls(absent, absent, absent, absent, absent)

    @property
    def has_prefill(self) -> bool:
        """Whether the step computes a prompt."""
        return len(np.shape(self.prefill_pos)) > 0

    @property
    def has_generate(self) -> bool:
        """Whether the step computes new tokens of rows."""
        return len(np.shape(self.generate_pos)) > 0

    def replace(self, **changes: Any) -> "PagedAttentionMetadata":
        """Returns a copy with other values of some fields."""
        return replace(self, **changes)
