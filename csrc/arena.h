// SPDX-License-Identifier: BSD-3-Clause
// Carves arrays out of the caller's workspace. Without memory it only counts, so the function that
// lays an operation's scratch out is also the one that says how many bytes it needs.
#pragma once

#include "flashmetric.h"
#include "policy.h"

namespace flashmetric {

class Arena {
 public:
  FM_HD explicit Arena(const Workspace& workspace)
      : base_(static_cast<char*>(workspace.data)), counting_(workspace.data == nullptr) {
    // Start on a cache line whatever the allocator's alignment; `bytes` reserves room for it.
    const auto address = reinterpret_cast<uintptr_t>(base_);
    used_ = counting_ ? kLine : (kLine - address % kLine) % kLine;
  }

  template <class T>
  FM_HD T* take(int64_t count) {
    T* array = counting_ ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    used_ += (bytes + kLine - 1) / kLine * kLine;
    return array;
  }

  FM_HD bool counting() const { return counting_; }
  FM_HD size_t bytes() const { return used_; }
  // What is left of the workspace, for another to carve up.
  Workspace rest(const Workspace& all) const { return {base_ + used_, all.bytes - used_}; }

 private:
  static constexpr size_t kLine = 64;  // bytes: a cache line, and the widest vector
  char* base_;
  size_t used_ = 0;
  bool counting_;
};

}  // namespace flashmetric
