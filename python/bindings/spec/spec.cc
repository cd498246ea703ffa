#include "bindings.h"
#include "spec_bindings.h"

namespace pagedkv {

void bind_spec(nb::module_& m) {
  bind_base_specs(m);
  bind_full_attention_spec(m);
  bind_sliding_window_spec(m);
  bind_chunked_local_attention_spec(m);
  bind_cross_attention_spec(m);
  bind_mamba_spec(m);
  bind_cache_groups(m);
}

}  // namespace pagedkv
