// SPDX-License-Identifier: BSD-3-Clause
// Fork-join over independent tasks. With OpenMP the threads are those of the libgomp that torch has
// already loaded, so torch's pool is shared and none is added.
#pragma once

#include <cstdint>

namespace flashmetric::cpu {

// The caller's number, but 1 inside another parallel region and 1 in a forked child: a child of a
// process whose OpenMP pool exists inherits no threads and would wait for them forever.
int usable_threads(int requested);

// A problem of fewer multiply-adds than this runs serially: at about 50 per ns and thread it takes
// 20 us, where waking a sleeping worker costs 5 to 50 us.
constexpr double kSerialWork = 1 << 20;

}  // namespace flashmetric::cpu
