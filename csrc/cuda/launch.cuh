// SPDX-License-Identifier: BSD-3-Clause
// How kernels follow each other. From compute capability 9.0 on, the blocks of a kernel that is
// started here may come while the last of the kernel before still run, and wait for what that one
// writes themselves: what a launch costs and what blocks begin with is hidden behind the kernel
// before. tests/emulated_gpu/launch.cuh has the same functions for the host.
#pragma once

#include <cuda_runtime.h>

#include "device.h"

namespace flashmetric::cuda {

// For kernels that begin with await_inputs.
template <class... Parameters, class... Arguments>
void start(Launches& launches, const char* name, void (*kernel)(Parameters...), dim3 grid,
           int threads, size_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  if (!launches.fine()) return;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = launches.overlap() ? 1 : 0;
  launches.note(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

// Until everything that kernels before this one wrote is there; the one after it may come as soon
// as all blocks of this one have.
__device__ inline void await_inputs() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
}

}  // namespace flashmetric::cuda
