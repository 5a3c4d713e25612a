// SPDX-License-Identifier: BSD-3-Clause
// Computes, for each triplet on its own: the float64 keys of its pairs (a warp a triplet, eight
// lanes a pair; those that mining has computed are there already), then its distances, its weighted
// loss, the slope that each of its pairs contributes, and which rows its pairs touch (a thread a
// triplet).
#pragma once

#include "../losses.h"
#include "triplet_state.cuh"

namespace flashmetric::cuda {

enum : uint8_t { kCounted = 1, kValid = 2, kActive = 4 };

// What is known of one triplet.
struct Term {
  double value = 0;  // weighted
  double d_ap = 0, d_an = 0;
  double coefficient[kPairs] = {};
  uint8_t flags = 0;
};

// The float64 keys of the pairs of a triplet, and what the distance makes of them.
struct TripletKeys {
  double of[kPairs];

  __device__ double value(const KeyForm& key, Pair pair) const { return key.value(of[pair]); }
  __device__ double slope(const KeyForm& key, Pair pair) const { return key.slope(of[pair]); }
};

// The same for a kernel in which each thread has one triplet. Written out at every place the
// formulas would be most of its instructions, and it would wait for those to come from memory.
struct StoredKeys {
  double of[kPairs];

  // Read before it is known which of them the triplet has: memory is waited for once.
  __device__ StoredKeys(const TripletState& state, int64_t t) {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      of[pair] = pair == kPN && !state.swap ? 0 : state.keys[pair][t];
    }
  }
  __device__ double value(const KeyForm& key, Pair pair) const {
    return value_of(key.distance, key.power, of[pair]);
  }
  __device__ double slope(const KeyForm& key, Pair pair) const {
    return slope_of(key.distance, key.power, of[pair]);
  }

 private:
  __device__ __noinline__ static double value_of(int distance, double power, double key) {
    KeyForm form{};
    form.distance = distance;
    form.power = power;
    return form.value(key);
  }
  __device__ __noinline__ static double slope_of(int distance, double power, double key) {
    KeyForm form{};
    form.distance = distance;
    form.power = power;
    return form.slope(key);
  }
};

// The rows of a triplet, if there is one; whether it has those it needs.
struct TripletRows {
  int64_t of[3];
  bool outside;  // an index that no row has

  __device__ TripletRows(const TripletState& state, int64_t t) {
#pragma unroll
    for (int role = 0; role < 3; ++role) of[role] = t < state.n ? state.row_of(role, t) : -1;
    outside = of[0] < 0 || of[0] >= state.rows[0].n || of[1] >= state.rows[1].n ||
              of[2] >= state.rows[2].n;
  }
  __device__ bool valid() const { return !outside && of[1] >= 0 && of[2] >= 0; }
};

constexpr int kKeyWarps = 8;

template <class T>
__global__ void __launch_bounds__(kKeyWarps* kWarp)
    write_keys(const __grid_constant__ TripletState state, RowSets<T> sets) {
  await_inputs();
  const int64_t t = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (t >= state.n) return;
  const TripletRows rows(state, t);
  if (rows.outside) return;
  const int group = static_cast<int>(threadIdx.x) % kWarp / 8;
  const int pair = group == 3 ? kAP : group;
  int x_role = role_of(pair, 0);
  int r_role = role_of(pair, 1);
  int64_t x = pair == kPN ? rows.of[1] : rows.of[0];
  int64_t r = pair == kAP ? rows.of[1] : rows.of[2];
  if (x < 0 || r < 0) {  // any row that exists: all lanes must come along
    x = r = rows.of[0];
    x_role = r_role = 0;
  }
  const double key = pair_value(state.key, sets.of[x_role], x, sets.of[r_role], r, state.dim);
  if (group < kPairs && threadIdx.x % 8 == 0) state.keys[pair][t] = key;
}

// Records the violation; returns the derivative of the term by it.
__device__ inline double settle(const TripletState& state, int64_t t, double d_ap, double d_an,
                                Term& term) {
  const int64_t anchor = state.anchor_of(t);
  const double margin = state.margin_values == nullptr
                            ? state.margin
                            : state.margin_values[anchor * state.margin_stride];
  const double weight = state.weights == nullptr ? 1.0 : state.weights[anchor];
  const double violation = d_ap - d_an + margin;
  const double value = state.soft_margin ? SoftMargin::value(violation) : Hinge::value(violation);
  term.d_ap = d_ap;
  term.d_an = d_an;
  term.value = weight * value;
  // Not <= 0: a NaN loss is active, or mean_active would hide it.
  term.flags = static_cast<uint8_t>(kCounted | (value <= 0 ? 0 : kActive));
  return weight * (state.soft_margin ? SoftMargin::slope(violation) : Hinge::slope(violation));
}

template <class Keys>
__device__ void evaluate_valid(const TripletState& state, int64_t t, const Keys& keys, Term& term) {
  const double d_an = keys.value(state.key, kAN);
  double distance = d_an;
  double share_an = 1;  // of the gradient of the smaller; ties are halved
  if (state.swap && d_an == d_an) {
    const double d_pn = keys.value(state.key, kPN);
    share_an = d_an == d_pn ? 0.5 : d_an < d_pn ? 1 : 0;
    if (share_an == 0) distance = d_pn;
  }
  const double slope = settle(state, t, keys.value(state.key, kAP), distance, term);
  term.flags |= kValid;
  if (slope == 0) return;
  term.coefficient[kAP] = slope * keys.slope(state.key, kAP);
  if (share_an != 0) term.coefficient[kAN] = -slope * share_an * keys.slope(state.key, kAN);
  if (share_an != 1) {
    term.coefficient[kPN] = -slope * (1 - share_an) * keys.slope(state.key, kPN);
  }
}

// Without a positive d_ap is 0. Without a negative d_an is d_ap and nothing moves, or, with
// far_from_none, d_an is 0 and d_ap moves.
template <class Keys>
__device__ void evaluate_incomplete(const TripletState& state, int64_t t, int64_t p, int64_t n,
                                    const Keys& keys, Term& term) {
  const double d_ap = p >= 0 ? keys.value(state.key, kAP) : 0;
  const double none = state.far_from_none ? 0 : d_ap;
  const double d_an = n >= 0 ? keys.value(state.key, kAN) : none;
  const double slope = settle(state, t, d_ap, d_an, term);
  if (slope == 0) return;
  if (n >= 0) term.coefficient[kAN] = -slope * keys.slope(state.key, kAN);
  if (n < 0 && p >= 0 && state.far_from_none) {
    term.coefficient[kAP] = slope * keys.slope(state.key, kAP);
  }
}

__device__ inline Term evaluate(const TripletState& state, int64_t t, const TripletRows& rows,
                                const StoredKeys& keys) {
  Term term;
  if (rows.outside) {
    term.value = __longlong_as_double(0x7FF8000000000000LL);
    term.flags = kCounted | kActive;
    return term;
  }
  const int64_t p = rows.of[1];
  const int64_t n = rows.of[2];
  const bool counts = rows.valid() || (p != -2 && state.count_invalid);
  if (!counts) return term;
  if (rows.valid()) {
    evaluate_valid(state, t, keys, term);
  } else {
    evaluate_incomplete(state, t, p, n, keys, term);
  }
  return term;
}

// Where the pairs of a triplet come in the lists of the rows that they touch, -1: nowhere. Rows of
// the triplet's own number need no list.
struct TouchPlaces {
  int32_t at[2 * kPairs];

  __device__ TouchPlaces(const TripletState& state, const TripletRows& rows, const Term& term) {
#pragma unroll
    for (int code = 0; code < 2 * kPairs; ++code) {
      const int role = role_of(code / 2, code % 2);
      const int set = state.first_role[role];
      const bool touches = term.coefficient[code / 2] != 0 && state.index[role] != nullptr &&
                           state.grad[set] != nullptr;
      at[code] = touches ? atomicAdd(state.touches[set].count + rows.of[role], 1) : -1;
    }
  }
};

// Enters the pairs into the lists.
__device__ inline void list_touches(const TripletState& state, int64_t t, const TripletRows& rows,
                                    const TouchPlaces& places) {
  const auto& at = places.at;
#pragma unroll
  for (int code = 0; code < 2 * kPairs; ++code) {
    if (at[code] < 0) continue;
    const int role = role_of(code / 2, code % 2);
    const int set = state.first_role[role];
    const TouchLists& lists = state.touches[set];
    const int64_t row = rows.of[role];
    const auto touch = static_cast<uint32_t>(t * kPairs * 2 + code);
    if (at[code] < kTouches) {
      lists.touch[row * kTouches + at[code]] = touch;
      continue;
    }
    const int32_t more = atomicAdd(&state.tally->n_overflow[set], 1);
    const int32_t before = atomicExch(lists.last + row, more + 1);
    lists.overflow[more] = {static_cast<int32_t>(row), touch, before};
    if (at[code] > kTouches) continue;
    lists.hubs[atomicAdd(&state.tally->n_hubs[set], 1)] = static_cast<int32_t>(row);
  }
}

__device__ inline void touch_rows(const TripletState& state, int64_t t, const TripletRows& rows,
                                  const Term& term) {
  list_touches(state, t, rows, TouchPlaces(state, rows, term));
}

template <class T>
__device__ double number_at(const void* numbers, int64_t at) {
  return widened(static_cast<const T*>(numbers)[at]);
}

// What reduction "none" writes, and multiplies by. Losses of halves are float32.
__device__ inline void keep_value(const TripletState& state, int64_t at, double value) {
  if (state.loss == nullptr) return;
  if (state.rows[0].dtype == DType::float64) {
    static_cast<double*>(state.loss)[at] = value;
  } else {
    static_cast<float*>(state.loss)[at] = static_cast<float>(value);
  }
}
__device__ inline void multiply_by_cotangent(const TripletState& state, int64_t t, Term& term) {
  if (state.cotangent == nullptr) return;
  const bool wide = state.rows[0].dtype == DType::float64;
  const int64_t at = state.anchor_of(t) * state.cotangent_stride;
  const double factor =
      wide ? number_at<double>(state.cotangent, at) : number_at<float>(state.cotangent, at);
#pragma unroll
  for (double& coefficient : term.coefficient) {
    if (coefficient != 0) coefficient *= factor;
  }
}

__device__ inline void count_term(const TripletState& state, int64_t t, const Term& term,
                                  TripletSums& sums) {
  const double weight = state.weights == nullptr ? 1.0 : state.weights[state.anchor_of(t)];
  sums.total.add(term.value);
  if ((term.flags & kCounted) != 0) sums.counted.add(weight);
  if ((term.flags & kActive) != 0) sums.active.add(weight);
  if ((term.flags & kValid) == 0) return;
  sums.reach(term.d_ap, term.d_an);
  sums.valid += 1;
  sums.valid_active += (term.flags & kActive) != 0;
  sums.ap.add(term.d_ap);
  sums.an.add(term.d_an);
}

}  // namespace flashmetric::cuda
