"""What `pagedkv plan` shows: a bar of the memory, and tables of what is in it."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pagedkv._core import AttentionSpec
from pagedkv.planning import MemoryPlan, PlannedGroup
from pagedkv.planning.sizes import format_bytes

WIDTH = 80

# Okabe and Ito's palette, for eyes that see fewer colours; the characters differ too.
_BAR = {
    "weights": ("█", "#999999"),
    "K/V": ("▓", "#0072B2"),
    "waste": ("▒", "#E69F00"),
    "left over": ("░", "#56B4E9"),
    "not used": ("·", "default"),
}
_WASTE_NAMES = {
    "partial_pages": "half of each last page",
    "beyond_window": "pages beyond windows, for the tokens of a step",
    "page_unification": "padding to pages of one size",
    "layout_padding": "padding of the layout",
    "copies": "copies on several devices of tp",
}


def print_plan(plan: MemoryPlan, console: Console) -> None:
    """Prints a plan in at most 80 columns."""
    parts: list[RenderableType] = [
        _title(plan),
        _groups(plan),
        _sizes(plan),
        _memory(plan),
        _waste(plan),
    ]
    if plan.single_type_bytes is not None:
        parts.append(
            Text(
                "With full attention alone, a manager would keep "
                f"{format_bytes(plan.single_type_bytes)} a request: {plan.single_type_ratio:.2f}x"
            )
        )
    for part in parts:
        console.print(Padding(part, (0, 0, 1, 1)), width=min(WIDTH, console.width))


def _title(plan: MemoryPlan) -> Text:
    scales = "" if plan.scales == "none" else f" with a scale a {plan.scales}"
    text = Text()
    text.append(plan.model, style="bold")
    layouts = "".join(f", {layout}" for layout in plan.layouts)
    text.append(f": {plan.num_layers} layers, {plan.dtype}{scales}{layouts}, ")
    text.append(f"page size {plan.page_size}, tp={plan.mesh.tp} dp={plan.mesh.dp}")
    return text


def _groups(plan: MemoryPlan) -> Table:
    table = _table("groups of layers", "layers", "heads", "page", "a token", "pages/request")
    rows: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(plan.groups):
        key = (_kind(group), _heads(group), _tokens(group), str(plan.pages_per_request[index]))
        rows.setdefault(key, []).append(index)
    for (kind, heads, tokens, _), indices in rows.items():
        groups = [plan.groups[index] for index in indices]
        num_layers = sum(len(group.layers) for group in groups)
        pages = f"{plan.pages_per_request[indices[0]]:,}"
        table.add_row(
            kind,
            f"{num_layers} in {len(groups)}" if len(plan.groups) > 1 else f"{num_layers}",
            heads,
            tokens,
            _size(sum(group.bytes_per_token for group in groups)),
            f"{len(groups)} x {pages}" if len(groups) > 1 else pages,
        )
    return table


def _sizes(plan: MemoryPlan) -> Table:
    tp = plan.mesh.tp
    columns = ["on a device"] + ([f"on {tp} (tp)"] if tp > 1 else [])
    table = _table("takes", *columns, "fit at a time")
    fit = {
        "a token, in all layers": f"{plan.num_tokens:,} tokens",
        "a page id": _pages(plan),
        f"a request of {plan.max_model_len:,}": _requests(plan),
    }
    sizes = (plan.bytes_per_token, plan.page_bytes, plan.request_bytes)
    for (name, count), size in zip(fit.items(), sizes, strict=True):
        table.add_row(name, *(_size(size * n) for n in ((1, tp) if tp > 1 else (1,))), count)
    return table


def _memory(plan: MemoryPlan) -> Table:
    taken = plan.kv_bytes - plan.left_over_bytes
    wasted = taken * plan.waste.total // plan.request_bytes
    parts = {
        "weights": plan.weights,
        "K/V": taken - wasted,
        "waste": wasted,
        "left over": plan.left_over_bytes,
        "not used": plan.memory - plan.weights - plan.kv_bytes,
    }
    bar, legend, line = Text(), Text(), ""
    widths = _widths(list(parts.values()), WIDTH - 1)
    for (name, size), width in zip(parts.items(), widths, strict=True):
        if not size:
            continue
        character, style = _BAR[name]
        bar.append(character * width, style=style)
        item = f"{character} {name} {format_bytes(size)}  "
        if len(line + item) > WIDTH:
            legend.append("\n")
            line = ""
        line += item
        legend.append(character, style=style)
        legend.append(item[1:])
    table = _table(f"memory of a device: {format_bytes(plan.memory)}")
    table.add_row(bar)
    table.add_row(legend)
    return table


def _waste(plan: MemoryPlan) -> Table:
    table = _table(f"waste in a request of {format_bytes(plan.request_bytes)}", "bytes", "part")
    for field, name in _WASTE_NAMES.items():
        size = getattr(plan.waste, field)
        if size:
            table.add_row(name, format_bytes(size), f"{size / plan.request_bytes:.1%}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, expand=True, pad_edge=False)
    table.add_column(first, ratio=1)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _kind(group: PlannedGroup) -> str:
    kind = group.kind.replace("_attention", "").replace("_", " ").replace("mla", "MLA")
    return kind if group.window is None else f"{kind} {group.window:,}"


def _heads(group: PlannedGroup) -> str:
    spec = group.spec
    if not isinstance(spec, AttentionSpec):
        return "a state"
    size = f"{spec.head_size}"
    if not spec.use_mla and spec.head_size_v != spec.head_size:
        size += f"+{spec.head_size_v}"
    return f"{spec.num_kv_heads} x {size}"


def _tokens(group: PlannedGroup) -> str:
    return f"{group.page_size:,}" if group.has_tokens else "-"


def _pages(plan: MemoryPlan) -> str:
    if plan.mesh.dp == 1:
        return f"{plan.num_pages:,} pages"
    return f"{plan.mesh.dp} x {plan.num_pages_per_rank:,} pages"


def _requests(plan: MemoryPlan) -> str:
    plural = "" if plan.max_concurrent_requests == 1 else "s"
    return f"{plan.max_concurrent_requests:,} request{plural} ({plan.concurrency:.2f})"


def _size(num_bytes: float) -> str:
    return format_bytes(int(num_bytes)) if num_bytes else "-"


def _widths(sizes: Sequence[int], width: int) -> list[int]:
    """Characters of each part of a bar: rounded so that they fill it, and at least 1 if not 0."""
    total = sum(sizes)
    widths = [max(1, round(size * width / total)) if size else 0 for size in sizes]
    widths[widths.index(max(widths))] += width - sum(widths)
    return widths
