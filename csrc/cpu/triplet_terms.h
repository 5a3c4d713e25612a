// SPDX-License-Identifier: BSD-3-Clause
// Computes, for each triplet on its own: the float64 keys of its pairs, its distances, its weighted
// loss, and the slope that each of its pairs contributes to the gradients.
#pragma once

#include "../losses.h"
#include "kernels.h"
#include "pair_gradient.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// The three pairs of a triplet. kPN only carries gradient when anchor and positive swap.
enum Pair : int { kAP = 0, kAN = 1, kPN = 2 };

enum : uint8_t { kCounted = 1, kValid = 2, kActive = 4 };

template <class T>
struct TripletState {
  RowView<T> rows[3]{};
  double* norm[3] = {};         // [rows] of each set, by its first role
  double* coefficient[3] = {};  // [n] by Pair: d term / d distance * slope of the distance
  double* term = nullptr;       // [n] weighted loss
  double* distance[2] = {};     // [n] d_ap, d_an as the loss saw them
  uint8_t* flags = nullptr;     // [n]
  PairScratch pairs;
  int threads = 1;
};

template <class T>
inline void lay_out_triplet(Arena& arena, const TripletProblem& problem, TripletState<T>& state) {
  int64_t most_rows = 0;
  for (int role = 0; role < 3; ++role) {
    const int64_t rows = problem.rows[role].n;
    most_rows = rows > most_rows ? rows : most_rows;
    if (problem.first_role[role] == role) state.norm[role] = take_numbers(arena, rows);
  }
  for (double*& coefficient : state.coefficient) coefficient = arena.take<double>(problem.n);
  state.term = arena.take<double>(problem.n);
  for (double*& distance : state.distance) distance = arena.take<double>(problem.n);
  state.flags = arena.take<uint8_t>(problem.n);
  state.pairs = lay_out_pairs(arena, most_rows, 3, problem.n, problem.dim, problem.threads);
}

template <class T>
inline void measure_sets(KeyForm key, const TripletProblem& problem, TripletState<T>& state) {
  for (int role = 0; role < 3; ++role) {
    const Rows& rows = problem.rows[role];
    const int first = problem.first_role[role];
    state.rows[role] = view_of<T>(rows, state.norm[first]);
    const bool wanted =
        key.needs_norms() || key.needs_means() || (role == 0 && problem.stats != nullptr);
    if (first != role || !wanted) continue;
    parallel_ranges(state.threads, rows.n, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        measure_row(key, state.rows[role], i, problem.dim);
      }
    });
  }
}

// min(d_an, d_pn), and the share of its gradient that goes to d_an; ties are halved.
struct SwappedNegative {
  double distance;
  double share_an;
};
FM_INLINE SwappedNegative swap_negative(double d_an, double d_pn) {
  if (d_an != d_an) return {d_an, 1};
  if (d_an == d_pn) return {d_an, 0.5};
  return d_an < d_pn ? SwappedNegative{d_an, 1} : SwappedNegative{d_pn, 0};
}

template <class T, class Loss>
struct TripletTerms {
  const TripletProblem& problem;
  const TripletState<T>& state;
  KeyForm key;

  FM_INLINE int64_t row_of(int role, int64_t t) const {
    return problem.index[role] == nullptr ? t : problem.index[role][t];
  }
  FM_INLINE bool outside(int role, int64_t row) const { return row >= problem.rows[role].n; }

  FM_INLINE void evaluate(int64_t t) const {
    for (double* coefficient : state.coefficient) coefficient[t] = 0;
    state.term[t] = state.distance[kAP][t] = state.distance[kAN][t] = 0;
    state.flags[t] = 0;
    const int64_t a = row_of(0, t);
    const int64_t p = row_of(1, t);
    const int64_t n = row_of(2, t);
    if (a < 0 || outside(0, a) || outside(1, p) || outside(2, n)) {
      state.term[t] = __builtin_nan("");
      state.flags[t] = kCounted | kActive;
    } else if (p >= 0 && n >= 0) {
      evaluate_valid(t, a, p, n);
    } else if (p != -2 && problem.count_invalid) {
      evaluate_incomplete(t, a, p, n);
    }
  }

 private:
  FM_INLINE double margin(int64_t t) const {
    return problem.margin_values == nullptr ? problem.margin
                                            : problem.margin_values[t * problem.margin_stride];
  }
  FM_INLINE double weight(int64_t t) const {
    return problem.weights == nullptr ? 1.0 : problem.weights[t];
  }
  FM_INLINE double pair(int role_x, int64_t x, int role_r, int64_t r) const {
    return pair_value(key, state.rows[role_x], x, state.rows[role_r], r, problem.dim);
  }

  FM_INLINE void evaluate_valid(int64_t t, int64_t a, int64_t p, int64_t n) const {
    const double key_ap = pair(0, a, 1, p);
    const double key_an = pair(0, a, 2, n);
    const double key_pn = problem.swap ? pair(1, p, 2, n) : 0;
    SwappedNegative negative{key.value(key_an), 1};
    if (problem.swap) negative = swap_negative(negative.distance, key.value(key_pn));
    const double slope = settle(t, key.value(key_ap), negative.distance);
    state.flags[t] |= kValid;
    if (slope == 0) return;
    state.coefficient[kAP][t] = slope * key.slope(key_ap);
    if (negative.share_an != 0) {
      state.coefficient[kAN][t] = -slope * negative.share_an * key.slope(key_an);
    }
    if (negative.share_an != 1) {
      state.coefficient[kPN][t] = -slope * (1 - negative.share_an) * key.slope(key_pn);
    }
  }

  // Without a positive d_ap is 0. Without a negative d_an is d_ap and nothing moves, or, with
  // far_from_none, d_an is 0 and d_ap moves.
  inline void evaluate_incomplete(int64_t t, int64_t a, int64_t p, int64_t n) const {
    const double key_ap = p >= 0 ? pair(0, a, 1, p) : 0;
    const double key_an = n >= 0 ? pair(0, a, 2, n) : 0;
    const double d_ap = p >= 0 ? key.value(key_ap) : 0;
    const double none = problem.far_from_none ? 0 : d_ap;
    const double slope = settle(t, d_ap, n >= 0 ? key.value(key_an) : none);
    if (slope == 0) return;
    if (n >= 0) state.coefficient[kAN][t] = -slope * key.slope(key_an);
    if (n < 0 && p >= 0 && problem.far_from_none) {
      state.coefficient[kAP][t] = slope * key.slope(key_ap);
    }
  }

  // Records the term; returns its derivative by the violation.
  FM_INLINE double settle(int64_t t, double d_ap, double d_an) const {
    const double violation = d_ap - d_an + margin(t);
    const double value = Loss::value(violation);
    state.distance[kAP][t] = d_ap;
    state.distance[kAN][t] = d_an;
    state.term[t] = weight(t) * value;
    // Not <= 0: a NaN loss is active, or mean_active would hide it.
    state.flags[t] = static_cast<uint8_t>(kCounted | (value <= 0 ? 0 : kActive));
    return weight(t) * Loss::slope(violation);
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
