#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache_pages.h"
#include "owning_manager.h"
#include "pagedkv/error.h"
#include "pagedkv/math.h"

// The calls that schedulers written for EasyDeL (and, but for names, vLLM) make: one a request,
// with request objects of the scheduler's own. Same names, arguments and results; see
// docs/schedulers.md for what they are and where they are better.
namespace pagedkv {
namespace {

std::string request_id_of(nb::handle request, const char* operation) {
  const nb::object id =
      nb::steal(PyObject_GetAttr(request.ptr(), AttributeNames::get().request_id));
  if (!id.is_valid()) nb::raise_python_error();
  if (!nb::isinstance<nb::str>(id)) {
    throw nb::type_error(
        error_message(operation, "request_id must be a text, got ", nb::inst_name(id).c_str())
            .c_str());
  }
  return text_of(id);
}

bool wants_prompt_logprobs(nb::handle request) {
  const AttributeNames& names = AttributeNames::get();
  const nb::object params = optional_attribute(request, names.sampling_params);
  return !params.is_none() && !optional_attribute(params, names.prompt_logprobs).is_none();
}

// Deals the pages out to the shards that are named, and returns the one that is hinted at. As many
// shards as do not divide the pages are none.
ShardId shard_for(CacheManager& core, std::optional<std::int32_t> hint,
                  std::optional<std::int32_t> num_shards) {
  const std::int32_t count = num_shards.value_or(1);
  if (count <= 1 || core.pool().num_pages() % count != 0) return kAnyShard;
  core.set_num_shards(count);
  if (!hint) return kAnyShard;
  return (*hint % count + count) % count;
}

CachePages no_pages(const OwningManager& manager) {
  return {manager.pool(), manager.core().num_groups(),
          [](GroupId) { return std::span<const PageId>(); }};
}

std::pair<CachePages, std::int32_t> get_computed_pages(
    OwningManager& manager, nb::handle request, std::optional<std::int32_t> dp_shard_hint,
    std::optional<std::int32_t> data_parallel_size) {
  constexpr auto kOperation = "CacheManager.get_computed_pages";
  const std::string id = request_id_of(request, kOperation);
  if (!manager.core().enable_caching() || wants_prompt_logprobs(request)) {
    return {no_pages(manager), 0};
  }
  const std::int32_t num_tokens =
      int32_attribute(request, AttributeNames::get().num_tokens, kOperation);
  GroupPages pages;
  const std::int32_t found =
      manager.with_named(kOperation, [&](CacheManager& core, NamedRequests& requests) {
        Request& known = *requests.update(request, id, core.hash_page_size(), kOperation).request;
        const ShardId shard = shard_for(core, dp_shard_hint, data_parallel_size);
        return without_gil_if_long(num_tokens / core.hash_page_size(), [&] {
          return core.find_prefix(known, num_tokens - 1, shard, pages);
        });
      });
  return {
      CachePages(manager.pool(), manager.core().num_groups(),
                 [&](GroupId group) { return std::span(pages[static_cast<std::size_t>(group)]); }),
      found};
}

// The arguments of one `allocate_slots`, and what it has read of the request so far.
struct SlotsCall {
  static constexpr auto kOperation = "CacheManager.allocate_slots";

  nb::handle object;
  std::string request_id;
  std::int32_t num_computed_tokens;
  std::int32_t num_new_tokens;
  std::int32_t num_new_computed_tokens;
  bool is_cached;  // the pages are to be found by others

  std::int64_t num_tokens() const {
    return std::int64_t{num_computed_tokens} + num_new_computed_tokens + num_new_tokens;
  }

  // The request with the tokens of all pages that are going to be full.
  NamedRequest& update(const CacheManager& core, NamedRequests& requests) const {
    if (!core.enable_caching()) return requests.of(object, request_id, kOperation);
    NamedRequest* known = requests.find(request_id);
    const std::int64_t num_pages = num_tokens() / core.hash_page_size();
    if (known != nullptr && known->object.is(object) && known->request->is_allocated() &&
        (!is_cached || num_pages * core.hash_page_size() <= known->request->num_tokens())) {
      return *known;
    }
    return requests.update(object, request_id, core.hash_page_size(), kOperation);
  }
};

std::int32_t clamp_to_int32(std::int64_t value) {
  return static_cast<std::int32_t>(
      std::min<std::int64_t>(value, std::numeric_limits<std::int32_t>::max()));
}

void check_counts(std::int32_t num_new_tokens, std::int32_t num_new_computed_tokens,
                  std::int32_t num_lookahead_tokens) {
  constexpr auto kOperation = SlotsCall::kOperation;
  if (num_new_tokens < 1) {
    throw_value_error(kOperation, "num_new_tokens must be greater than 0, got ", num_new_tokens);
  }
  if (num_new_computed_tokens < 0) {
    throw_value_error(kOperation, "num_new_computed_tokens must be >= 0, got ",
                      num_new_computed_tokens);
  }
  if (num_lookahead_tokens < 0) {
    throw_value_error(kOperation, "num_lookahead_tokens must be >= 0, got ", num_lookahead_tokens);
  }
}

std::optional<CachePages> allocate_slots(OwningManager& manager, nb::handle object,
                                         std::int32_t num_new_tokens,
                                         std::int32_t num_new_computed_tokens,
                                         const CachePages* new_computed_pages,
                                         std::int32_t num_lookahead_tokens, bool delay_cache_pages,
                                         std::optional<std::int32_t> dp_shard_hint,
                                         std::optional<std::int32_t> data_parallel_size) {
  constexpr auto kOperation = SlotsCall::kOperation;
  check_counts(num_new_tokens, num_new_computed_tokens, num_lookahead_tokens);
  const SlotsCall call{
      object,
      request_id_of(object, kOperation),
      int32_attribute(object, AttributeNames::get().num_computed_tokens, kOperation),
      num_new_tokens,
      num_new_computed_tokens,
      manager.core().enable_caching() && !delay_cache_pages};
  GroupPages prefix;
  if (new_computed_pages != nullptr && !new_computed_pages->is_empty()) {
    prefix = new_computed_pages->rows(kOperation);
  }
  return manager.with_named(
      kOperation, [&](CacheManager& core, NamedRequests& requests) -> std::optional<CachePages> {
        if (!prefix.empty() && !core.enable_caching()) {
          throw_value_error(kOperation, "new_computed_pages must be empty: prefix caching is off");
        }
        if (!prefix.empty() && std::cmp_not_equal(prefix.size(), core.num_groups())) {
          throw_value_error(kOperation, "new_computed_pages must have a list of pages for each of ",
                            core.num_groups(), " groups, got ", prefix.size());
        }
        Request& request = *call.update(core, requests).request;
        const bool is_new = !request.is_allocated();
        if (!is_new && !prefix.empty()) {
          throw_value_error(kOperation, "request '", call.request_id,
                            "' holds pages already: new_computed_pages must be empty");
        }
        Demand demand;
        demand.shard = shard_for(core, dp_shard_hint, data_parallel_size);
        demand.stays_in_shard = data_parallel_size == core.pool().shards().size();
        demand.may_be_ahead = true;
        demand.num_lookahead_tokens = num_lookahead_tokens;
        if (!is_new) core.set_num_computed_tokens(request, call.num_computed_tokens);
        if (!prefix.empty()) {
          demand.num_cached_tokens = num_new_computed_tokens;
          demand.prefix = &prefix;
        }
        const std::int32_t num_known =
            (is_new ? 0 : call.num_computed_tokens) + demand.num_cached_tokens;
        demand.num_new_tokens = clamp_to_int32(call.num_tokens() - num_known);

        std::vector<std::size_t> begins(static_cast<std::size_t>(core.num_groups()));
        for (GroupId group = 0; group < core.num_groups(); ++group) {
          auto& begin = begins[static_cast<std::size_t>(group)];
          if (!is_new) begin = core.page_ids(request, group).size();
          if (!prefix.empty()) begin = prefix[static_cast<std::size_t>(group)].size();
        }
        if (!core.allocate(request, demand)) return std::nullopt;
        if (call.is_cached) {
          const auto num_cacheable = static_cast<std::int32_t>(
              std::min({call.num_tokens(), std::int64_t{request.num_tokens()},
                        std::int64_t{core.num_allocated_tokens(request)}}));
          core.cache(request, num_cacheable, call.num_tokens());
        }
        return CachePages(manager.pool(), core.num_groups(), [&](GroupId group) {
          return core.page_ids(request, group).subspan(begins[static_cast<std::size_t>(group)]);
        });
      });
}

void cache_pages(OwningManager& manager, nb::handle object, std::int32_t num_computed_tokens) {
  constexpr auto kOperation = "CacheManager.cache_pages";
  const std::string id = request_id_of(object, kOperation);
  manager.with_named(kOperation, [&](CacheManager& core, NamedRequests& requests) {
    NamedRequest* known = requests.find(id);
    if (known == nullptr || !known->request->is_allocated()) {
      refuse_ours(object, kOperation);
      throw_value_error(kOperation, "request '", id,
                        "' holds no pages (freed already, or never allocated)");
    }
    if (num_computed_tokens < 0) {
      throw_value_error(kOperation, "num_computed_tokens must be >= 0, got ", num_computed_tokens);
    }
    if (!core.enable_caching()) return;
    const std::int32_t num_full = round_down(num_computed_tokens, core.hash_page_size());
    if (num_full > known->request->num_tokens()) {
      known = &requests.update(object, id, core.hash_page_size(), kOperation);
    }
    core.cache(*known->request, num_full, num_computed_tokens, kOperation);
  });
}

void free(OwningManager& manager, nb::handle object) {
  constexpr auto kOperation = "CacheManager.free";
  const std::string id = request_id_of(object, kOperation);
  manager.with_named(kOperation, [&](CacheManager& core, NamedRequests& requests) {
    NamedRequest* known = requests.find(id);
    if (known == nullptr || !known->request->is_allocated()) return;
    core.free(*known->request);
    if (known->is_finished || !core.enable_caching()) requests.erase(id);
  });
}

void free_page_hashes(OwningManager& manager, nb::handle object) {
  constexpr auto kOperation = "CacheManager.free_page_hashes";
  const std::string id = request_id_of(object, kOperation);
  manager.with_named(kOperation, [&](CacheManager&, NamedRequests& requests) {
    NamedRequest* known = requests.find(id);
    if (known == nullptr) return refuse_ours(object, kOperation);
    if (known->request->is_allocated()) {
      known->is_finished = true;
    } else {
      requests.erase(id);
    }
  });
}

nb::tuple get_page_ids(const OwningManager& manager, std::string_view request_id) {
  const NamedRequest* known = manager.named().find(request_id);
  if (known == nullptr || !known->request->is_allocated()) return no_pages(manager).page_ids();
  const auto row = [&](GroupId group) { return manager.core().page_ids(*known->request, group); };
  return CachePages(manager.pool(), manager.core().num_groups(), row).page_ids();
}

nb::list get_num_common_prefix_pages(const OwningManager& manager, nb::handle object,
                                     std::int32_t num_scheduled_requests) {
  constexpr auto kOperation = "CacheManager.get_num_common_prefix_pages";
  const std::string id = request_id_of(object, kOperation);
  const AttributeNames& names = AttributeNames::get();
  const nb::object status = optional_attribute(object, names.status);
  const nb::object name = optional_attribute(status, names.name);
  if (!name.is_none() && !name.equal(nb::str("RUNNING"))) {
    throw_value_error(kOperation, "request '", id, "' is ", text_of(nb::str(name)),
                      ", it must be RUNNING");
  }
  if (num_scheduled_requests < 1) {
    throw_value_error(kOperation, "num_scheduled_requests must be >= 1, got ",
                      num_scheduled_requests);
  }
  const CacheManager& core = manager.core();
  const NamedRequest* known = manager.named().find(id);
  if (known == nullptr) refuse_ours(object, kOperation);
  const bool holds_pages = known != nullptr && known->request->is_allocated();
  nb::list counts;
  for (GroupId group = 0; group < core.num_groups(); ++group) {
    const bool can_share = holds_pages && core.enable_caching();
    counts.append(nb::int_(
        can_share ? core.num_common_prefix_pages(*known->request, group, num_scheduled_requests)
                  : 0));
  }
  return counts;
}

}  // namespace

void bind_scheduler_calls(nb::class_<OwningManager>& manager) {
  manager
      .def("get_computed_pages", &get_computed_pages, "request"_a, nb::kw_only(),
           "dp_shard_hint"_a = nb::none(), "data_parallel_size"_a = nb::none(), R"doc(
The longest prefix of a scheduler's own request that is cached, and how many tokens it has.

Like ``match``, for request objects of any class. What is read of them: ``request_id``,
``num_tokens``, ``all_token_ids`` by slices (only what is new), and if they have them
``sampling_params.prompt_logprobs``, ``has_vision`` with ``mm_features``, ``cache_salt``,
``lora_request``.

Args:
  request: Anything with those attributes. One and the same object only ever gets more tokens, until
    ``free_page_hashes``.
  dp_shard_hint: Only pages of this data-parallel shard count.
  data_parallel_size: Shards of the pool. Without effect if it does not divide ``num_pages``.

Returns:
  The pages and their tokens, fewer than ``num_tokens``. None and 0 if caching is off, or if the
  request wants log-probabilities of its prompt.

Raises:
  AttributeError, TypeError, ValueError: If an attribute is missing or is not what it should be.
)doc")
      .def("allocate_slots", &allocate_slots, "request"_a, "num_new_tokens"_a,
           "num_new_computed_tokens"_a = 0, "new_computed_pages"_a.none() = nb::none(),
           "num_lookahead_tokens"_a = 0, "delay_cache_pages"_a = false,
           "dp_shard_hint"_a = nb::none(), "data_parallel_size"_a = nb::none(), R"doc(
Makes room for the next tokens of a scheduler's own request, and says where.

Room for tokens past ``max_model_len`` is not made. Pages that get full are found by others from now
on: run the step before any step that reads them.

Args:
  request: As in ``get_computed_pages``, with ``num_computed_tokens``.
  num_new_tokens: At least 1; need not be known yet.
  num_new_computed_tokens: Of a request without pages: what ``get_computed_pages`` said, or tokens
    that somebody else computes.
  new_computed_pages: The pages that go with them, from the cache.
  num_lookahead_tokens: Draft tokens after the new ones.
  delay_cache_pages: Let ``cache_pages`` show the pages to others, later.
  dp_shard_hint: Where new pages come from, if the request has none in another shard.
  data_parallel_size: As in ``get_computed_pages``.

Returns:
  The new pages alone, or None if too few are free: then nothing has happened but that pages the
  request needs no more were given back.

Raises:
  ValueError: If a count is out of range, or ``new_computed_pages`` are not a prefix of the request
    (any more).
  AttributeError, TypeError: If an attribute is missing or is not what it should be.
)doc")
      .def("cache_pages", &cache_pages, "request"_a, "num_computed_tokens"_a, R"doc(
Lets others find the pages that the first ``num_computed_tokens`` tokens of a scheduler's own request
fill.

Raises:
  ValueError: If the request holds no pages, or has no room for that many tokens, or not as many.
)doc")
      .def("free", &free, "request"_a,
           "Gives all pages of a scheduler's own request back. Does nothing if it holds none.")
      .def("free_page_hashes", &free_page_hashes, "request"_a,
           "Forgets what is known of a scheduler's own request, once it has finished.")
      .def("get_page_ids", &get_page_ids, "request_id"_a,
           nb::sig("def get_page_ids(self, request_id: str) -> tuple[list[int], ...]"),
           "The pages of a request: a tuple of lists, one a group; empty ones if it holds none.")
      .def("get_num_common_prefix_pages", &get_num_common_prefix_pages, "request"_a,
           "num_scheduled_requests"_a,
           nb::sig("def get_num_common_prefix_pages(self, request: object, "
                   "num_scheduled_requests: int) -> list[int]"),
           R"doc(
How many leading pages of the request are held by that many requests, for each group.

0 for groups that do not read their whole prefix, and if caching is off.

Raises:
  ValueError: If the request has a ``status`` that is not RUNNING, or the number is below 1.
)doc")
      .def("create_empty_page_list", &no_pages, "Empty lists of pages, one a group.");
}

}  // namespace pagedkv
