// SPDX-License-Identifier: BSD-3-Clause
// Fork-join over independent tasks. With OpenMP the threads are those of the libgomp that torch has
// already loaded, so torch's pool is shared and none is added.
#pragma once

#include <cstdint>

namespace flashmetric::cpu {

// Threads for a problem of `work` multiply-adds: the caller's number, but 1 if they are few, inside
// another parallel region and in a forked child: a child of a process whose OpenMP pool exists
// inherits no threads and would wait for them forever.
int threads_for(double work, int requested);

}  // namespace flashmetric::cpu
