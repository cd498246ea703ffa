"""How `pagedkv generate` serves: a model, engines of it, and what the visitors ask them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pagedkv.serving.choices import MODELS
from pagedkv.serving.engine import Engine
from pagedkv.serving.model_files import ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import PagedModel
from pagedkv.serving.prompts import QUESTIONS, visitor_chat
from pagedkv.serving.tokenizer import ChatTokenizer

from .console import console
from .report import Run, track
from .telemetry import Telemetry


@dataclass(frozen=True)
class Server:
    """A loaded model, and the sizes of the engines that are to serve it."""

    model: PagedModel
    tokenizer: ChatTokenizer
    num_pages: int
    page_size: int
    batch_size: int
    chunk_size: int
    record: Path | None = None  # file for the calls on an engine's manager
    telemetry: Telemetry = field(default_factory=Telemetry)

    def start(self, *, prefix_cache: bool) -> Engine:
        return Engine(
            self.model,
            eos_id=self.tokenizer.eos_id,
            num_pages=self.num_pages,
            page_size=self.page_size,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
            prefix_cache=prefix_cache,
        )

    @contextmanager
    def observed(self, engine: Engine) -> Iterator[Callable[[], None]]:
        """Records an engine, and tells others of it as was asked for.

        The function it gives is to be called after each step.
        """
        with ExitStack() as stack:
            if self.record is not None:
                engine.manager.start_recording(self.record)
                stack.callback(engine.manager.stop_recording)
            yield stack.enter_context(self.telemetry.follow(engine))


def load(name: str, kv_dtype: str) -> tuple[PagedModel, ChatTokenizer]:
    start = time.perf_counter()
    with console.status("Loading the model ..."):
        file = ModelFile(find_model(name) if name in MODELS else Path(name))
        tokenizer = ChatTokenizer(file)
        model = load_model(file, kv_dtype)
    console.print(f"Loaded {file.path.name} in {time.perf_counter() - start:.1f} s.")
    return model, tokenizer


def serve_visitors(server: Server, prefix_cache: bool, max_new_tokens: int) -> Run:
    start, compiled_before = time.perf_counter(), server.model.compile_seconds
    engine = server.start(prefix_cache=prefix_cache)
    generations = [
        engine.submit(f"visitor-{i}", server.tokenizer.encode_chat(visitor_chat(q)), max_new_tokens)
        for i, q in enumerate(QUESTIONS)
    ]
    title = "with prefix cache" if prefix_cache else "without prefix cache"
    with server.observed(engine) as after_step, track(title, engine, generations) as update:
        while engine.has_work:
            engine.step()
            after_step()
            update()
    return Run(
        title=title,
        questions=QUESTIONS,
        answers=[generation.answer for generation in generations],
        stats=engine.stats,
        wall_seconds=time.perf_counter() - start,
        compile_seconds=server.model.compile_seconds - compiled_before,
    )


def answer(server: Server, prefix_cache: bool, prompt: str, max_new_tokens: int) -> None:
    """Answers one question, word by word."""
    engine = server.start(prefix_cache=prefix_cache)
    tokens = server.tokenizer.encode_chat([{"role": "user", "content": prompt}])
    with server.observed(engine) as after_step:
        engine.submit("prompt", tokens, max_new_tokens)
        next_text = server.tokenizer.stream()
        while engine.has_work:
            for _, token in engine.step():
                console.out(next_text(token), end="", highlight=False)
            after_step()
        console.print()
    stats = engine.stats
    console.print(
        f"{stats.num_tokens_prefilled} tokens prefilled, {stats.num_tokens_decoded} decoded at "
        f"{stats.decode_rate:.0f} tokens/s, {stats.peak_pages} pages.",
        style="dim",
    )
