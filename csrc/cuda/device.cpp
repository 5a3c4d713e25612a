// SPDX-License-Identifier: BSD-3-Clause
#include "device.h"

#include <cstdlib>
#include <vector>

namespace flashmetric::cuda {
namespace {

std::vector<DeviceFacts> ask_devices() {
  int count = 0;
  int driver = 0;  // 1000 * major + 10 * minor of its CUDA
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  cudaDriverGetVersion(&driver);
  std::vector<DeviceFacts> all(static_cast<size_t>(count));
  for (int device = 0; device < count; ++device) {
    DeviceFacts& facts = all[static_cast<size_t>(device)];
    cudaDeviceGetAttribute(&facts.major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&facts.minor, cudaDevAttrComputeCapabilityMinor, device);
    cudaDeviceGetAttribute(&facts.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&facts.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaDeviceGetAttribute(&facts.cache_bytes, cudaDevAttrL2CacheSize, device);
    // Graphs know such launches since CUDA 12.3.
    facts.overlaps = facts.major >= 9 && driver >= 12030;
  }
  return all;
}

std::string_view forced_path() {
  const char* name = std::getenv("FLASHMETRIC_CUDA_PATH");
  return name == nullptr ? "" : name;
}

constexpr std::string_view kPaths[] = {"fma", "mma", "wgmma"};  // in the order of Path

Path best_path(int major, int minor) {
#if defined(FLASHMETRIC_CUDA_SM90)
  if (major == 9 && minor == 0) return Path::wgmma;
#endif
  static_cast<void>(minor);
  return major >= 8 ? Path::mma : Path::fma;
}

}  // namespace

const DeviceFacts& facts_of(int device) {
  static const std::vector<DeviceFacts> all = ask_devices();
  static const DeviceFacts unknown;
  const auto index = static_cast<size_t>(device);
  return index < all.size() ? all[index] : unknown;
}

Path path_of(int major, int minor) {
  const Path best = best_path(major, minor);
  for (const Path path : {Path::fma, Path::mma, Path::wgmma}) {
    if (forced_path() == kPaths[static_cast<int>(path)] && path <= best) return path;
  }
  return best;
}

bool path_is_forced() { return !forced_path().empty(); }

Status path_error(int major, int minor) {
  const std::string_view asked = forced_path();
  const auto best = static_cast<int>(best_path(major, minor));
  if (asked.empty()) return {};
  Status status = "[FLASHMETRIC_CUDA_PATH] a GPU of compute capability ";
  status.append(std::to_string(major)).append(".").append(std::to_string(minor)).append(" runs ");
  for (int path = 0; path <= best; ++path) {
    if (asked == kPaths[path]) return {};
    status.append(path > 0 ? ", " : "").append(kPaths[path]);
  }
  return status.append("; got '").append(asked).append("'.");
}

Status path(int major, int minor, std::string& name) {
  name = kPaths[static_cast<int>(path_of(major, minor))];
  return path_error(major, minor);
}

DeviceGuard::DeviceGuard(int device) : error_(cudaGetDevice(&before_)) {
  if (error_ == cudaSuccess && before_ != device) error_ = cudaSetDevice(device);
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

Status status_of(cudaError_t error, const char* op, const char* what) {
  if (error == cudaSuccess) return {};
  Status status = "[";
  return status.append(op)
      .append("] CUDA error in ")
      .append(what)
      .append(": ")
      .append(cudaGetErrorString(error))
      .append(".");
}

}  // namespace flashmetric::cuda
