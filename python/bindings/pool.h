#pragma once

#include <memory>

#include "pagedkv/pool/page_pool.h"

namespace pagedkv {

/// The pool of a manager, for Python to look at. It lives as long as somebody does.
struct PagePoolView {
  std::shared_ptr<const PagePool> pool;
};

}  // namespace pagedkv
