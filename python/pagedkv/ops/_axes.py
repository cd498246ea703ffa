"""Names for the axes of an op's arrays, and what they say about sharding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jax.sharding import PartitionSpec

from pagedkv.layouts import KVLayout

# The mesh axes that an axis is sharded over, from major to minor.
MeshAxes = tuple[str, ...]
# Of each name of an axis that is sharded.
Placement = Mapping[str, MeshAxes]

_BATCH = "batch"  # "batch0" and so on: what `jax.vmap` puts in front
_FREE = "free"  # axes of arrays that an op handles element by element


@dataclass(frozen=True)
class OpAxes:
    """The names of the axes of an op's operands and results.

    Operands with an axis "pages" are pools, and they decide: over what they shard "pages",
    "kv_heads" and axes whose name begins with "free", all arrays with such an axis are sharded. All
    else is replicated. An axis may be longer than others of its name, such as query heads:
    neighbours stay together then.

    Attributes:
      name: Of the op.
      operands: The names of the axes of each operand, by the operand's name.
      results: The names of the axes of each result.
      ids: The operands that name pages, each with the axes of a pool that its ids count through.
        Without any, the op cannot run on pages that are sharded.
      paired: Whether ids at one position must be of one device; those that are not count as out of
        range.
      summed: Indices of the results that are zeros on a device for pages that it does not have.
    """

    name: str
    operands: Mapping[str, tuple[str, ...]]
    results: tuple[tuple[str, ...], ...]
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paired: bool = False
    summed: frozenset[int] = frozenset()

    def under_vmap(self, mapped: Sequence[bool]) -> "OpAxes":
        """These axes once the mapped operands, and all results, have one more in front."""
        depth = sum(name.startswith(_BATCH) for name in self.results[0])
        batch = f"{_BATCH}{depth}"
        operands = {
            name: (batch, *axes) if is_mapped else axes
            for (name, axes), is_mapped in zip(self.operands.items(), mapped, strict=True)
        }
        results = tuple((batch, *axes) for axes in self.results)
        return replace(self, operands=operands, results=results)

    def place(
        self, shapes: Sequence[tuple[int, ...]], shardings: Sequence[Any], sizes: Mapping[str, int]
    ) -> Placement:
        """Decides over which mesh axes each axis is sharded.

        Args:
          shapes: Of all operands.
          shardings: Of all operands, each with a ``spec``.
          sizes: Of the mesh axes.

        Raises:
          ValueError: If a pool is sharded in a way that the op cannot work with.
        """
        placement: dict[str, MeshAxes] = {}
        specs = [
            _mesh_axes(sharding.spec, len(shape))
            for shape, sharding in zip(shapes, shardings, strict=True)
        ]
        for (operand, names), spec in zip(self.operands.items(), specs, strict=True):
            if "pages" in names:
                self._place_pool(operand, names, spec, placement)
        # A pool that is not mapped says nothing of the batch.
        used = {mesh_axis for mesh_axes in placement.values() for mesh_axis in mesh_axes}
        for names, spec in zip(self.operands.values(), specs, strict=True):
            for name, mesh_axes in zip(names, spec, strict=True):
                is_open = name.startswith(_BATCH) and name not in placement
                if is_open and mesh_axes and used.isdisjoint(mesh_axes):
                    placement[name] = mesh_axes
                    used.update(mesh_axes)
        self._check_sizes(shapes, placement, sizes)
        return placement

    def _place_pool(
        self,
        operand: str,
        names: tuple[str, ...],
        spec: tuple[MeshAxes, ...],
        placement: dict[str, MeshAxes],
    ) -> None:
        for name, mesh_axes in zip(names, spec, strict=True):
            if mesh_axes and name == "pages" and not self.ids:
                raise ValueError(
                    f"[{self.name}] {operand} must not be sharded over its pages, got pages over "
                    f"{_text(mesh_axes)}; shard the requests as well, with jax.shard_map, and give "
                    "each shard the ids that its own pages have there"
                )
            if mesh_axes and not may_be_sharded(name):
                allowed = [axis for axis in names if may_be_sharded(axis)]
                raise ValueError(
                    f"[{self.name}] {operand} may be sharded over {' and '.join(allowed)}, "
                    f"got {name} over {_text(mesh_axes)}"
                )
            if placement.setdefault(name, mesh_axes) != mesh_axes:
                raise ValueError(
                    f"[{self.name}] {operand} must be sharded as the first pool, {name} over "
                    f"{_text(placement[name])}, got {_text(mesh_axes)}"
                )

    def _check_sizes(
        self,
        shapes: Sequence[tuple[int, ...]],
        placement: Placement,
        sizes: Mapping[str, int],
    ) -> None:
        for (operand, names), shape in zip(self.operands.items(), shapes, strict=True):
            for name, size in zip(names, shape, strict=True):
                parts = 1
                for mesh_axis in placement.get(name, ()):
                    parts *= sizes[mesh_axis]
                if parts > 1 and size % parts != 0:
                    raise ValueError(
                        f"[{self.name}] {name} of {operand} must be a multiple of {parts} to be "
                        f"sharded over {_text(placement[name])}, got {size}"
                    )


def may_be_sharded(name: str) -> bool:
    return name in ("pages", "kv_heads") or name.startswith((_BATCH, _FREE))


def pool_axes(layout: KVLayout, *, layered: bool) -> tuple[str, ...]:
    """The names of a pool's axes. Of two that count together the second is not sharded."""
    names: list[str] = ["layers"] * layered
    for name in layout.axes:
        names.append(f"{name}_pack" if name in names else name)
    return tuple(names)


def scale_axes(layout: KVLayout, *, layered: bool, rank: int) -> tuple[str, ...]:
    """The names of the axes of a quantised pool's scales, which have ``rank`` of them."""
    sides = ("sides",) * (layout is KVLayout.SIDE_BY_SIDE)
    shared: tuple[str, ...] = ()
    for name in ("head_dim", "page_size", "pages"):  # what shares a scale: more and more
        shared = (*shared, name)
        axes = pool_axes(layout, layered=layered)
        kept = (*(axis for axis in axes if not axis.startswith(shared)), *sides)
        if len(kept) == rank:
            return kept
    raise ValueError(f"no scales of a {layout.name} pool have {rank} axes")


def without_pages(pool: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the axes of one page, in one layer."""
    return tuple(name for name in pool if name not in ("layers", "pages"))


def numbered(name: str, rank: int) -> tuple[str, ...]:
    """Names for axes that have none."""
    return tuple(f"{name}{i}" for i in range(rank))


def partition_spec(names: tuple[str, ...], placement: Placement) -> PartitionSpec:
    return PartitionSpec(*(placement.get(name) or None for name in names))


def _mesh_axes(spec: Any, rank: int) -> tuple[MeshAxes, ...]:
    """A PartitionSpec with a tuple for each axis."""
    entries = (*spec, *[None] * (rank - len(spec)))
    return tuple(
        () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        for entry in entries
    )


def _text(mesh_axes: MeshAxes) -> str:
    return " and ".join(map(repr, mesh_axes)) or "no mesh axis"
