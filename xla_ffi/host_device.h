#pragma once

/// Marks of functions that also run, or run only, on a CUDA device. Without nvcc they are ordinary
/// functions, so that what a kernel does can be tested where there is no GPU.
#ifdef __CUDACC__
#define PAGEDKV_HOST_DEVICE __host__ __device__
#define PAGEDKV_DEVICE __device__
#define PAGEDKV_UNROLL _Pragma("unroll 4")  // so that a thread has several loads in flight
#else
#define PAGEDKV_HOST_DEVICE
#define PAGEDKV_DEVICE
#define PAGEDKV_UNROLL
#endif
