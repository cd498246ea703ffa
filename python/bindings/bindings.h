#pragma once

#include <nanobind/nanobind.h>

namespace pagedkv {

namespace nb = nanobind;
using namespace nb::literals;

// One function per file of this folder, called in this order by module.cc.
void bind_spec(nb::module_& m);
void bind_extra_keys(nb::module_& m);
void bind_pool(nb::module_& m);
void bind_cache_pages(nb::module_& m);
void bind_retention(nb::module_& m);
void bind_request(nb::module_& m);
void bind_hash(nb::module_& m);
void bind_events(nb::module_& m);
void bind_manager(nb::module_& m);
void bind_op_traces(nb::module_& m);

}  // namespace pagedkv
