#include "bindings.h"
#include "numpy_arrays.h"

NB_MODULE(_core, m) {
#ifdef NDEBUG
  nanobind::set_leak_warnings(false);  // globals of a program may well outlive the interpreter
#endif
  pagedkv::import_numpy();
  m.doc() = "C++ core of pagedkv. Import from `pagedkv`, not from here.";
  pagedkv::bind_spec(m);
  pagedkv::bind_extra_keys(m);
  pagedkv::bind_pool(m);
  pagedkv::bind_cache_pages(m);
  pagedkv::bind_retention(m);
  pagedkv::bind_request(m);
  pagedkv::bind_hash(m);
  pagedkv::bind_events(m);
  pagedkv::bind_manager(m);
  pagedkv::bind_op_traces(m);
}
