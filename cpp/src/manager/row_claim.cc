#include "pagedkv/manager/row_claim.h"

#include "pagedkv/manager/request.h"

namespace pagedkv {

RetentionTerm RowClaim::term_of(std::size_t i) const {
  if (request == nullptr) return {};
  const auto begin = static_cast<std::int64_t>(i) * page_size;
  return request->retention_of(begin, begin + page_size);
}

bool RowClaim::allocate(PagePool& pool, std::span<PageId> row, std::size_t begin,
                        std::size_t end) const {
  if (request == nullptr && !contiguous)
    return pool.allocate(row.subspan(begin, end - begin), shard);
  while (begin < end) {
    const RetentionTerm term = term_of(begin);
    std::size_t same_end = begin + 1;
    while (same_end < end && term_of(same_end) == term) ++same_end;
    const PageId after = begin > 0 && row[begin - 1] != kNullPage ? row[begin - 1] : kNoPage;
    const PageClaim claim{.shard = shard, .term = term, .contiguous = contiguous, .after = after};
    if (!pool.allocate(row.subspan(begin, same_end - begin), claim)) return false;
    begin = same_end;
  }
  return true;
}

void RowClaim::hold(PagePool& pool, PageId page, std::size_t i) const {
  pool.hold(std::span(&page, 1), term_of(i));
}

}  // namespace pagedkv
