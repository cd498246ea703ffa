#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pagedkv/manager/cache_manager.h"
#include "random.h"

namespace pagedkv {

/// Random calls of a scheduler on a manager, wrong ones among them. Declare it before the manager.
class Traffic {
 public:
  /// With `keeps`, requests are kept on terms, pinned and counted for tenants as well.
  explicit Traffic(unsigned seed, bool keeps = false) : random_(seed), keeps_(keeps) {}

  /// Makes one call, or a few that go together.
  void step(CacheManager& manager) {
    try {
      act(manager);
    } catch (const std::logic_error&) {  // a wrong call, which must change nothing
    }
  }

  /// Frees all, in the order in which they came.
  void finish(CacheManager& manager) {
    for (Request& request : requests_) {
      if (manager.holds(request)) manager.free(request);
    }
  }

  std::list<Request>& requests() { return requests_; }

  std::vector<TokenId> some_tokens(std::int32_t most) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(random_.below(most) + 1));
    for (TokenId& token : tokens) token = random_.below(2);
    return tokens;
  }

 private:
  Request& some_request() {
    return *std::next(requests_.begin(), random_.below(std::ssize(requests_)));
  }

  ShardId some_shard(const CacheManager& manager) {
    return random_.below(manager.pool().shards().size() + 2) - 1;  // the last one is foreign
  }

  void retain(Request& request) {
    const RetentionTerm term{.priority = random_.below(3) * 50,
                             .ttl = random_.below(2) == 0 ? RetentionTerm::kForever : 3,
                             .tenant = random_.below(3) - 1};
    request.retain(std::make_shared<const Retention>(
        term, std::vector<RetentionRange>{{.end = 4, .priority = random_.below(101)}}));
  }

  // What is only for some kinds of traffic: pins, quotas and time.
  void keep(CacheManager& manager, Request& request) {
    if (!keeps_) return;
    const int choice = random_.below(5);
    if (choice == 0) {
      pins_.push_back(manager.pin(request));
    } else if (choice == 1 && !pins_.empty()) {
      manager.unpin(pins_.back());
      pins_.pop_back();
    } else if (choice == 2) {
      manager.unpin(random_.below(3));
    } else if (choice == 3) {
      manager.advance_time(time_ += random_.below(4) - 1);
    } else {
      const std::int32_t quota = random_.below(8) - 1;
      manager.set_tenant_quota(random_.below(3) - 1,
                               quota < 0 ? std::nullopt : std::optional(quota));
    }
  }

  void act(CacheManager& manager) {
    const int choice = random_.below(20);
    if (requests_.empty() || choice == 0) {
      requests_.emplace_back(
          "r" + std::to_string(num_requests_++), some_tokens(30),
          choice == 0 && random_.below(4) == 0 ? ExtraKeys(std::nullopt, {}, "salt") : ExtraKeys(),
          random_.below(5));
      if (keeps_ && random_.below(4) == 0) retain(requests_.back());
      return;
    }
    Request& request = some_request();
    if (choice == 1) {
      requests_.remove_if([&](const Request& each) { return &each == &request; });
    } else if (choice == 2) {
      manager.reset_prefix_cache();
    } else if (choice == 3) {
      manager.free(request);
    } else if (choice == 4) {
      manager.set_num_computed_tokens(request, random_.below(request.num_tokens() + 2));
    } else if (choice == 5) {
      manager.cache(request, random_.below(request.num_tokens() + 2));
    } else if (choice == 6) {
      request.append(some_tokens(4));
      request.truncate(random_.below(request.num_tokens() + 2));
      request.append(some_tokens(2));
    } else if (choice == 7) {
      Request& child = requests_.emplace_back(
          "c" + std::to_string(num_requests_++),
          std::vector<TokenId>(request.tokens().begin(), request.tokens().end()), ExtraKeys(),
          request.num_encoder_tokens());
      if (random_.below(2) == 0) child.append(some_tokens(3));
      std::vector<PageCopies> copies;
      [[maybe_unused]] const bool done = manager.fork(request, child, copies);
    } else if (choice == 8) {
      keep(manager, request);
    } else if (choice < 13 && !request.is_allocated()) {
      Demand demand{.num_lookahead_tokens = random_.below(3), .shard = some_shard(manager)};
      GroupPages pages;
      if (random_.below(2) == 0) {
        demand.num_cached_tokens = manager.match(request, demand.shard);
      } else {
        demand.num_cached_tokens =
            manager.find_prefix(request, request.num_tokens() - 1, demand.shard, pages);
        if (demand.num_cached_tokens > 0) demand.prefix = &pages;
      }
      demand.num_new_tokens = random_.below(request.num_tokens() - demand.num_cached_tokens + 2);
      demand.may_be_ahead = random_.below(8) == 0;
      demand.full_sequence_must_fit = random_.below(4) == 0;
      demand.watermark_pages = random_.below(3);
      [[maybe_unused]] const bool done = manager.allocate(request, demand);
    } else {
      if (random_.below(3) > 0) request.append(some_tokens(1));
      [[maybe_unused]] const bool done = manager.allocate(request, random_.below(4) + 1);
      if (random_.below(4) > 0) {
        manager.commit(request,
                       std::min(request.num_tokens(), manager.num_allocated_tokens(request)));
      }
    }
  }

  Random random_;
  bool keeps_;
  std::vector<PinId> pins_;
  std::int64_t time_ = 0;
  std::list<Request> requests_;
  int num_requests_ = 0;
};

}  // namespace pagedkv
