"""Page hashes in Python: as one object a page, and of embeddings.

`PageHash` and the functions on it have the names and semantics that schedulers written for EasyDeL
know. They are for code that keeps its own maps; `CacheManager` and `PageHasher` hash whole requests
in C++ and make no object a page.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pagedkv._core import PageHasher, PromptEmbeds, hash_page

HashFunction: TypeAlias = Callable[[Any], Any] | PageHasher | str
"""What hashes a page: any function of a tuple, such as Python's ``hash``; one of ours, as a
`PageHasher` or by its name, whose hash values are digests (``bytes``)."""


class PageHash(NamedTuple):
    """Hash of a page, and all it was made of: two that are equal have equal content."""

    hash_value: Any
    token_ids: tuple[int, ...]
    extra_keys: Any | None = None


class PageHashWithGroupId(NamedTuple):
    """Hash of a page in a group of layers."""

    page_hash: PageHash
    group_id: int

    def get_hash_value(self) -> Any:
        """Returns ``page_hash.hash_value``."""
        return self.page_hash.hash_value


NONE_HASH: int
"""Parent of a first page, where a function such as Python's ``hash`` is used."""


def init_none_hash() -> None:
    """Sets `NONE_HASH` anew: from ``PYTHONHASHSEED`` if that is a number, at random if not."""
    global NONE_HASH
    seed = os.environ.get("PYTHONHASHSEED", "random")
    NONE_HASH = hash(int(seed)) if seed.isdecimal() else int.from_bytes(os.urandom(32), "big")


init_none_hash()


def hash_page_tokens(
    hash_function: HashFunction,
    parent_page_hash: Any | None,
    curr_page_token_ids: Sequence[int],
    extra_keys: tuple[Any, ...] | None = None,
) -> PageHash:
    """Hashes one full page.

    Args:
      hash_function: Called with ``(parent, tokens, extra_keys)``, or one of ours.
      parent_page_hash: ``hash_value`` of the page before; None for a first page.
      curr_page_token_ids: The tokens of the page.
      extra_keys: What besides them decides its content. With one of ours: tuples of integers,
        texts, bytes, None and tuples.

    Returns:
      The hash value with all it was made of.

    Raises:
      ValueError: If the name is not one of ``hash_algorithms()``.
      TypeError: If one of ours gets extra keys of other types.

    Example:
      >>> from pagedkv.hashing import hash_page_tokens
      >>> hash_page_tokens("sha256_cbor", None, range(1000, 1016)).hash_value.hex()[:8]
      '15528b72'
    """
    tokens = tuple(curr_page_token_ids)
    if isinstance(hash_function, str):
        hash_function = PageHasher(hash_function)
    if isinstance(hash_function, PageHasher):
        parent = hash_function.root if parent_page_hash is None else parent_page_hash
        extra = None if extra_keys is None else _to_cbor(extra_keys)
        value: Any = hash_page(parent, tokens, extra, algorithm=hash_function.algorithm)
    else:
        parent = NONE_HASH if parent_page_hash is None else parent_page_hash
        value = hash_function((parent, tokens, extra_keys))
    return PageHash(value, tokens, extra_keys)


def hash_request_tokens(
    hash_function: HashFunction, page_size: int, request: Any
) -> list[PageHash]:
    """Hashes every full page of a request, each after the one before.

    Args:
      hash_function: As in `hash_page_tokens`.
      page_size: Tokens a page holds, at least 1.
      request: Has ``all_token_ids``. If its ``has_vision`` is true, ``modality`` and ``mm_hash`` of
        its ``mm_features`` are extra keys of every page.

    Returns:
      One hash a full page, in order.

    Raises:
      ValueError: If ``page_size`` is below 1.
    """
    if page_size < 1:
        raise ValueError(f"[hash_request_tokens] page_size must be at least 1, got {page_size}")
    if isinstance(hash_function, str):
        hash_function = PageHasher(hash_function)
    token_ids = request.all_token_ids
    extra_keys = _request_extra_keys(request)
    hashes: list[PageHash] = []
    parent = None
    for end in range(page_size, len(token_ids) + 1, page_size):
        page_tokens = token_ids[end - page_size : end]
        hashes.append(hash_page_tokens(hash_function, parent, page_tokens, extra_keys))
        parent = hashes[-1].hash_value
    return hashes


def prompt_embeds(embeds: Any, page_size: int) -> PromptEmbeds:
    """Hashes a prompt's embeddings, for ``Request(..., prompt_embeds=...)``.

    Args:
      embeds: NumPy or JAX array of any dtype, shape ``[n, hidden]``.
      page_size: Tokens a page holds, as in the manager that will see the request.

    Returns:
      One digest for each page that they reach; the array is not kept.

    Raises:
      ValueError: If ``embeds`` has not two dimensions, or is empty; if ``page_size`` is below 1.
    """
    array = np.ascontiguousarray(embeds)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"[prompt_embeds] embeds must have shape [n, hidden], both > 0, got {array.shape}"
        )
    return PromptEmbeds(array.view(np.uint8), page_size)


def _request_extra_keys(request: Any) -> tuple[Any, ...] | None:
    features = getattr(request, "mm_features", None)
    if not getattr(request, "has_vision", False) or not features:
        return None
    return tuple(
        (str(getattr(feature, "modality", "mm")), str(getattr(feature, "mm_hash", "")))
        for feature in features
    )


def _cbor_head(major_type: int, value: int) -> bytes:
    if value < 24:
        return bytes([major_type << 5 | value])
    log2_bytes = next((i for i in range(4) if value < 1 << (8 << i)), None)
    if log2_bytes is None:
        raise TypeError("[hash_page_tokens] integers in extra_keys must fit in 64 bits")
    return bytes([major_type << 5 | 24 + log2_bytes]) + value.to_bytes(1 << log2_bytes, "big")


def _to_cbor(value: Any) -> bytes:
    """Canonical CBOR (RFC 8949, section 4.2.1) of what extra keys are made of."""
    if value is None:
        return b"\xf6"
    if isinstance(value, int) and not isinstance(value, bool):
        return _cbor_head(0, value) if value >= 0 else _cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return _cbor_head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _cbor_head(3, len(text)) + text
    if isinstance(value, tuple | list):
        return _cbor_head(4, len(value)) + b"".join(map(_to_cbor, value))
    raise TypeError(
        "[hash_page_tokens] extra_keys must be made of int, str, bytes, None and tuples, "
        f"got {type(value).__name__}"
    )
