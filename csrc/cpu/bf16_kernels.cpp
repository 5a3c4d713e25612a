// SPDX-License-Identifier: BSD-3-Clause
// Compiled for instruction sets whose vectors multiply bfloat16 pairs.
#include "bf16_tiles.h"
#include "narrow.h"

#if !defined(FLASHMETRIC_PAIR_PRODUCTS)
#error "bf16_kernels.cpp needs an instruction set that multiplies bfloat16 pairs."
#endif

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

bool always = false;

void mine(MineProblem& problem, Names names) { mine_by<Bf16Tiles>(problem, names); }

void pair_products(const float* rows, int64_t n, int64_t dim, float* out) {
  products_by<Bf16Tiles>(rows, n, dim, out);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
