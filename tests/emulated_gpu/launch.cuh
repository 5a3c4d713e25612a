// SPDX-License-Identifier: BSD-3-Clause
// The functions of csrc/cuda/launch.cuh for the host, where kernels run one after the other.
#pragma once

#include <cuda_runtime.h>

#include "device.h"

namespace flashmetric::cuda {

template <class... Parameters, class... Arguments>
void start(Launches& launches, const char*, void (*kernel)(Parameters...), dim3 grid, int threads,
           size_t shared_bytes, cudaStream_t, const Arguments&... arguments) {
  if (!launches.fine()) return;
  emulated::launch(grid, threads, shared_bytes, [&] { kernel(arguments...); });
}

inline void await_inputs() {}

}  // namespace flashmetric::cuda
