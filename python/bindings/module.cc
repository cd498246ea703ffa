#include "bindings.h"

NB_MODULE(_core, m) {
  m.doc() = "C++ core of pagedkv. Import from `pagedkv`, not from here.";
  pagedkv::bind_hash(m);
}
