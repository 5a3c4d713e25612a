// SPDX-License-Identifier: BSD-3-Clause
// What an instruction set that multiplies bfloat16 pairs does otherwise than the one below it.
#pragma once

#include "kernels.h"

namespace flashmetric::cpu::avx512_bf16 {

void mine(MineProblem& problem, Names names);

extern bool always;  // for tests: whether it pays or not

// At most kMaxHookRows rows and kMaxHookDim features (test_hooks.h).
void pair_products(const float* rows, int64_t n, int64_t dim, float* out);

}  // namespace flashmetric::cpu::avx512_bf16
