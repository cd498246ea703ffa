#pragma once

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// What a cached page is found by.
struct PageContent {
  PageId page = kNoPage;
  GroupId group = kNoGroup;
  PageHash hash;

  friend bool operator==(const PageContent&, const PageContent&) = default;
};

}  // namespace pagedkv
