// SPDX-License-Identifier: BSD-3-Clause
// The CUDA side of a build without CUDA.
#include "../flashmetric.h"

namespace flashmetric {

bool built_with_cuda() { return false; }

}  // namespace flashmetric
