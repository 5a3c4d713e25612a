// SPDX-License-Identifier: BSD-3-Clause
// Compiled for processors with a matrix unit (AMX-TILE and AMX-BF16).
#include "amx_tiles.h"
#include "narrow.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

bool always = false;

void mine(MineProblem& problem, Names names) { mine_by<AmxTiles>(problem, names); }

void pair_products(const float* rows, int64_t n, int64_t dim, float* out) {
  products_by<AmxTiles>(rows, n, dim, out);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
