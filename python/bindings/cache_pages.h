#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "pagedkv/manager/coordinator.h"
#include "pool.h"

namespace pagedkv {

/// Pages of one request, a list a group, as schedulers pass them around: the ids alone. Python
/// objects of the pages are made when somebody asks for them.
///
/// May instead hold what its maker gave: a tuple of lists of anything.
class CachePages {
 public:
  /// Takes the ids that `ids_of(group)` gives, a span, for each group.
  template <typename IdsOf>
  CachePages(PagePoolView pool, GroupId num_groups, IdsOf ids_of) : pool_(std::move(pool)) {
    ends_.reserve(static_cast<std::size_t>(num_groups));
    for (GroupId group = 0; group < num_groups; ++group) {
      const std::span<const PageId> added = ids_of(group);
      ids_.insert(ids_.end(), added.begin(), added.end());
      ends_.push_back(ids_.size());
    }
  }

  explicit CachePages(nb::tuple pages) : pages_(std::move(pages)) {}

  std::size_t num_groups() const { return is_made_of_ids() ? ends_.size() : nb::len(pages_); }

  /// A fresh tuple of lists of int. Of given pages, their `page_id`.
  nb::tuple page_ids() const;

  /// The ids, of given pages their `page_id`, as rows. Throws TypeError if those are not integers.
  GroupPages rows(const char* operation) const;

  /// The ids; what was given, if not made of ids.
  std::string repr() const;

  /// The tuple of lists of pages: always the same one.
  nb::tuple pages();

  // For Python's cycle collector: given pages may refer back to this.
  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(pages_.ptr());
    return 0;
  }
  void clear() { pages_ = nb::tuple(); }

  bool is_made_of_ids() const { return pool_.pool != nullptr; }

  /// No pages in any group.
  bool is_empty() const;

  /// Of the pool that the ids are in; null if not made of ids.
  const PagePoolView& pool() const { return pool_; }

  /// Of a group, if made of ids.
  std::span<const PageId> ids(std::size_t group) const {
    const std::size_t begin = group == 0 ? 0 : ends_[group - 1];
    return std::span(ids_).subspan(begin, ends_[group] - begin);
  }

 private:
  PagePoolView pool_;
  std::vector<PageId> ids_;
  std::vector<std::size_t> ends_;  // of each group in ids_
  nb::tuple pages_ = nb::steal<nb::tuple>(nullptr);
};

}  // namespace pagedkv
