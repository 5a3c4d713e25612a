// SPDX-License-Identifier: BSD-3-Clause
// The CUDA side of a build with CUDA. A placeholder: one kernel, so that the build has something to
// compile for every architecture.
#include "../flashmetric.h"

namespace flashmetric {

namespace cuda {

__global__ void scale(const float* in, float factor, float* out, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = factor * in[i] + in[0];
}

void launch_scale(const float* in, float factor, float* out, int64_t n, cudaStream_t stream) {
  scale<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(in, factor, out, n);
}

}  // namespace cuda

bool built_with_cuda() { return true; }

}  // namespace flashmetric
