// SPDX-License-Identifier: BSD-3-Clause
// What instruction sets that multiply bytes or bfloat16 pairs do otherwise than avx512.
#pragma once

#include "kernels.h"

#define FLASHMETRIC_NARROW_KERNELS(isa)                                                         \
  namespace flashmetric::cpu::isa {                                                             \
  void mine(MineProblem& problem, Names names);                                                 \
  extern bool always; /* for tests: whether it pays or not */                                   \
  /* At most kMaxHookRows rows and kMaxHookDim features (test_hooks.h); false: no such unit. */ \
  bool products(std::string_view unit, const float* rows, int64_t n, int64_t dim, float* out);  \
  }

FLASHMETRIC_NARROW_KERNELS(avx512_vnni)
FLASHMETRIC_NARROW_KERNELS(avx512_bf16)
FLASHMETRIC_NARROW_KERNELS(amx)

#undef FLASHMETRIC_NARROW_KERNELS
