#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "owning_manager.h"
#include "pagedkv/error.h"
#include "pagedkv/watch/event_log.h"

// What has happened to the cached content, in runs of pages: see docs/events.md.
namespace pagedkv {
namespace {

/// One event of a batch, which lives as long as one of its events does.
struct EventView {
  std::shared_ptr<const EventBatch> batch;
  const PageEvent* event;
  HashAlgorithm algorithm;

  DigestArray digests() const { return array_of(batch->digests_of(*event), algorithm); }
};

struct PagesStored : EventView {};
struct PagesRemoved : EventView {};
struct PagesCleared {};

nb::str text(const std::string& utf8) { return nb::str(utf8.data(), utf8.size()); }

// As vLLM has them. With larger pages than those that are hashed, embeddings have a key for each of
// the latter.
nb::object keys_of_page(const PageEvent& event, std::int64_t page) {
  const ExtraKeys& keys = *event.extra_keys;
  const std::int64_t begin = page * event.page_size;
  nb::list tuples;
  if (keys.lora()) {
    tuples.append(nb::make_tuple("lora", text(keys.lora()->name), text(keys.lora()->path)));
  }
  for (const MultimodalItem* item : keys.items_of(begin, begin + event.page_size)) {
    tuples.append(nb::make_tuple("mm", text(item->identifier), item->offset - begin));
  }
  if (keys.cache_salt() && page == 0) {
    tuples.append(nb::make_tuple("cache_salt", text(*keys.cache_salt())));
  }
  if (keys.prompt_embeds()) {
    const std::int64_t ratio = event.page_size / event.hash_page_size;
    for (std::int64_t inner = page * ratio; inner < (page + 1) * ratio; ++inner) {
      const auto& digest = keys.prompt_embeds()->digest(static_cast<std::size_t>(inner));
      tuples.append(nb::make_tuple("prompt_embeds", nb::bytes(digest.data(), digest.size())));
    }
  }
  return nb::len(tuples) == 0 ? nb::none() : nb::object(nb::tuple(tuples));
}

nb::object extra_keys_of(const PagesStored& self) {
  const PageEvent& event = *self.event;
  if (event.extra_keys == nullptr) return nb::none();
  nb::list pages;
  for (std::size_t i = 0; i < event.num_pages; ++i) {
    pages.append(keys_of_page(event, event.first_page + static_cast<std::int64_t>(i)));
  }
  return pages;
}

nb::list take_events(OwningManager& self) {
  const HashAlgorithm algorithm = self.core().hasher().algorithm();
  const auto batch = std::make_shared<const EventBatch>(self.with_core(
      "CacheManager.take_events", [](CacheManager& core) { return core.take_events(); }));
  nb::list events;
  for (const PageEvent& event : batch->events) {
    switch (event.kind) {
      case PageEventKind::kStored:
        events.append(PagesStored{{batch, &event, algorithm}});
        break;
      case PageEventKind::kRemoved:
        events.append(PagesRemoved{{batch, &event, algorithm}});
        break;
      case PageEventKind::kCleared:
        events.append(PagesCleared{});
        break;
    }
  }
  return events;
}

template <typename Event>
void bind_common(nb::class_<Event>& event) {
  event
      .def_prop_ro("digests", &Event::digests, nb::rv_policy::move,
                   "Their digests: uint8, shape ``[pages, bytes]``.")
      .def_prop_ro("num_pages", [](const Event& e) { return e.event->num_pages; })
      .def_prop_ro(
          "group", [](const Event& e) { return e.event->group; }, "Whose pages: a group of layers.")
      .def_prop_ro(
          "shard", [](const Event& e) { return e.event->shard; },
          "The data-parallel shard of the pages.");
}

}  // namespace

void bind_events(nb::module_& m) {
  nb::class_<PagesStored> stored(m, "PagesStored", R"doc(
Pages that follow each other in one request, and can be found from now on in their shard.
)doc");
  bind_common(stored);
  stored
      .def_prop_ro(
          "parent_digest",
          [](const PagesStored& e) -> std::optional<nb::bytes> {
            if (!e.event->parent) return std::nullopt;
            return bytes_of(*e.event->parent, e.algorithm);
          },
          "Digest of the page before the first one; None if there is none, or nobody knows.")
      .def_prop_ro(
          "tokens", [](const PagesStored& e) { return copy_of(e.batch->tokens_of(*e.event)); },
          R"doc(
Their tokens: int32, shape ``[pages * page_size]``. Empty if nobody knows: for content that was restored
from a snapshot, or stored before events were on.
)doc")
      .def_prop_ro(
          "page_size", [](const PagesStored& e) { return e.event->page_size; },
          "Tokens of a page; 0 if nobody knows what is in them.")
      .def_prop_ro(
          "lora_name",
          [](const PagesStored& e) -> nb::object {
            const auto& keys = e.event->extra_keys;
            if (keys == nullptr || !keys->lora()) return nb::none();
            return text(keys->lora()->name);
          },
          nb::sig("def lora_name(self) -> str | None"), "The adapter of the request, or None.")
      .def_prop_ro(
          "extra_keys", &extra_keys_of,
          nb::sig("def extra_keys(self) -> list[tuple[tuple[object, ...], ...] | None] | None"),
          R"doc(
What besides tokens decides their content, one entry a page, as vLLM has it: ``("lora", name, path)``,
``("mm", identifier, offset - start)``, ``("cache_salt", salt)``, ``("prompt_embeds", digest)``. None if
the request has none.
)doc")
      .def("__repr__", [](const PagesStored& e) {
        return nb::str("PagesStored(num_pages={}, group={}, shard={}, page_size={})")
            .format(e.event->num_pages, e.event->group, e.event->shard, e.event->page_size);
      });
  nb::class_<PagesRemoved> removed(m, "PagesRemoved", R"doc(
Pages whose content cannot be found any more in their shard, in the order in which they went.
)doc");
  bind_common(removed);
  removed.def("__repr__", [](const PagesRemoved& e) {
    return nb::str("PagesRemoved(num_pages={}, group={}, shard={})")
        .format(e.event->num_pages, e.event->group, e.event->shard);
  });
  nb::class_<PagesCleared>(m, "PagesCleared", R"doc(
No content can be found any more, in any group and shard.
)doc")
      .def("__repr__", [](const PagesCleared&) { return "PagesCleared()"; });
}

void bind_event_calls(nb::class_<OwningManager>& manager) {
  manager
      .def(
          "start_events",
          [](OwningManager& self, std::int64_t max_pages) {
            if (max_pages < 1) {
              throw_value_error("CacheManager.start_events", "max_pages must be >= 1, got ",
                                max_pages);
            }
            self.with_core("CacheManager.start_events", [&](CacheManager& core) {
              core.start_events(static_cast<std::size_t>(max_pages));
            });
          },
          nb::kw_only(), "max_pages"_a = 1 << 20, R"doc(
Notes from now on which content can be found and which cannot any more, for `take_events`. The first
events say what can be found now. While events are off, nothing is noted, and nothing costs anything.

Content of which a shard has several pages counts once: stored when the first page comes, removed when
the last one goes. So the events that were taken add up to what ``match`` can find.

Args:
  max_pages: At least 1. If more pages are noted and not taken, the notes are dropped, and the next
    ``take_events`` begins anew: `PagesCleared`, then all that can be found, without tokens.

Raises:
  ValueError: If events are on already, or ``max_pages`` is below 1.
)doc")
      .def(
          "stop_events",
          [](OwningManager& self) {
            self.with_core("CacheManager.stop_events",
                           [](CacheManager& core) { core.stop_events(); });
          },
          R"doc(
Notes nothing any more, and drops what was not taken.

Raises:
  ValueError: If events are off.
)doc")
      .def("take_events", &take_events,
           nb::sig("def take_events(self) -> list[PagesStored | PagesRemoved | PagesCleared]"),
           R"doc(
What has happened to the cached content since the last call, in order. Pages that were stored or removed
after each other are one event, and its arrays are made when they are asked for.

Raises:
  ValueError: If events are off.

Example:

    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    >>> manager.start_events()
    >>> request = Request("a", range(10))
    >>> manager.allocate(request, 10), manager.commit(request, 10)
    (True, False)
    >>> stored, = manager.take_events()
    >>> stored, stored.tokens.tolist()
    (PagesStored(num_pages=2, group=0, shard=0, page_size=4), [0, 1, 2, 3, 4, 5, 6, 7])
)doc")
      .def_prop_ro(
          "has_events_on",
          [](const OwningManager& m) { return m.core().pool().events() != nullptr; },
          "Whether changes of the cached content are noted for ``take_events``.")
      .def_prop_ro(
          "kv_cache_specs",
          [](const OwningManager& m) {
            return std::vector<AnyCacheSpec>(m.core().specs().begin(), m.core().specs().end());
          },
          nb::sig("def kv_cache_specs(self) -> list[CacheSpec]"),
          "What the layers of each group keep, in a fresh list.");
}

}  // namespace pagedkv
