// What `kernels.cu` does, on the host.
#include <cstring>

#include "cuda/dequantize_pages.h"
#include "cuda/device.h"
#include "cuda/page_pairs.h"
#include "cuda/page_runs.h"
#include "cuda/quantize_rows.h"
#include "cuda/write_rows.h"
#include "host_launch.h"

namespace pagedkv::cuda {

template <typename Kernel>
const char* launch(DeviceStream, const Kernel& kernel) {
  launch_on_host(kernel);
  return nullptr;
}

template <typename Kernel>
const char* launch_columns(DeviceStream, const Kernel& kernel) {
  launch_columns_on_host(kernel);
  return nullptr;
}

const char* copy_bytes(DeviceStream, void* to, const void* from, int64_t num_bytes) {
  std::memcpy(to, from, static_cast<size_t>(num_bytes));
  return nullptr;
}

template const char* launch(DeviceStream, const WriteRows&);
template const char* launch(DeviceStream, const QuantizeRows&);
template const char* launch(DeviceStream, const DequantizePages&);
template const char* launch(DeviceStream, const MovePages<true>&);
template const char* launch(DeviceStream, const MovePages<false>&);
template const char* launch(DeviceStream, const CountPairs&);
template const char* launch_columns(DeviceStream, const CopyPairs&);

}  // namespace pagedkv::cuda
