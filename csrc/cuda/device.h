// SPDX-License-Identifier: BSD-3-Clause
// What the host knows of GPUs: their facts, which main loop they run, and errors as sentences.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <string>

#include "../cuda.h"

namespace flashmetric::cuda {

struct DeviceFacts {
  int major = 0, minor = 0;
  int multiprocessors = 1;
  int shared_bytes = 48 * 1024;  // that a block may ask for
  int cache_bytes = 4 << 20;     // of the level that all blocks share
  bool overlaps = false;         // a kernel may begin while another ends, in graphs as well
};

// Asked once per process; no CUDA call before the first one.
const DeviceFacts& facts_of(int device);

enum class Path { fma, mma, wgmma };

// That of FLASHMETRIC_CUDA_PATH, else the best for the compute capability.
Path path_of(int major, int minor);
// Asked for by FLASHMETRIC_CUDA_PATH: then tiles rank whatever they can, however small.
bool path_is_forced();
// Why FLASHMETRIC_CUDA_PATH cannot be honoured on such a GPU; empty if it can, or is not set.
Status path_error(int major, int minor);

// Makes a device current, and the one before it again.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int before_ = -1;
  cudaError_t error_;
};

// "" or "[op] CUDA error in `what`: ...".
Status status_of(cudaError_t error, const char* op, const char* what);

// The first error of a chain of launches, and where it came up.
class Launches {
 public:
  Launches(const char* op, const DeviceFacts& facts) : op_(op), overlap_(facts.overlaps) {}
  bool overlap() const { return overlap_; }
  bool fine() const { return error_ == cudaSuccess; }
  void note(cudaError_t error, const char* what) {
    if (!fine() || error == cudaSuccess) return;
    error_ = error;
    what_ = what;
  }
  // After `kernel<<<...>>>(...)`.
  void check(const char* kernel) { note(cudaGetLastError(), kernel); }
  Status status() const { return status_of(error_, op_, what_); }

 private:
  const char* op_;
  bool overlap_;
  const char* what_ = "";
  cudaError_t error_ = cudaSuccess;
};

// Lets a kernel have that much dynamic shared memory, once per device.
template <class Kernel>
cudaError_t allow_shared(Kernel kernel, int bytes, std::atomic<uint64_t>& done) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const uint64_t bit = uint64_t{1} << (device % 64);
  if (error != cudaSuccess || (device < 64 && (done.load() & bit) != 0)) return error;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) done.fetch_or(bit);
  return error;
}

}  // namespace flashmetric::cuda
