// SPDX-License-Identifier: BSD-3-Clause
// What the tests ask of the kernels beyond the API: to see that a wrong certificate
// (docs/numerics.md) is noticed, and that the hardware is what it assumes.
#pragma once

#include "flashmetric.h"

namespace flashmetric {

// Multiplies the slack of every row from now on; 1 is the certificate.
void set_slack_factor(double factor);

// Ranks by narrow tiles also where that does not pay, if the instruction set in use can.
void rank_narrow_always(bool always);

// How it ends when a unit is tried on some rows (cpu/trial.h): 1 well, -1 badly, 0 as it does. Not
// asked where the unit cannot take the rows.
void decide_trials(int verdict);

constexpr int64_t kMaxHookRows = 96;
constexpr int64_t kMaxHookDim = 512;

// out[n, n]: the inner products of rows [n, dim], rounded as tiles of a unit round them, "int8" or
// "bf16", and computed by these.
Status narrow_products(std::string_view unit, const float* rows, int64_t n, int64_t dim,
                       float* out);

}  // namespace flashmetric
