// SPDX-License-Identifier: BSD-3-Clause
// Computes a triplet loss over given triplets, its statistics and the gradient of every row.
//
// Algorithm:
//   for each triplet: float64 keys of its pairs -> distances -> loss, slopes           (parallel)
//   sums over triplets, compensated, in order -> the scalar loss and its denominator   (serial)
//   for each set of rows: list the triplets that touch each row (counting sort)        (serial)
//   for each row: add up its pairs in the order of that list                           (parallel)
//
// Why so: a row's gradient is gathered by the one thread that owns the row: no atomics, no private
// copies, and the same additions in the same order for any number of threads.
//
// Numerics: everything between the rows and the results is float64.
#pragma once

#include "gradient_row.h"
#include "threads.h"
#include "triplet_terms.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Neumaier's compensated sum: the error does not grow with the number of terms.
struct ExactSum {
  double sum = 0;
  double lost = 0;
  FM_INLINE void add(double x) {
    const double total = sum + x;
    const bool x_is_smaller = (sum < 0 ? -sum : sum) >= (x < 0 ? -x : x);
    lost += x_is_smaller ? (sum - total) + x : (x - total) + sum;
    sum = total;
  }
  // Where the sum is not finite the correction is NaN; the sum itself says what torch would say.
  FM_INLINE double value() const { return lost == lost ? sum + lost : sum; }
};

template <class T>
inline double sum_terms(const TripletProblem& problem, Reduction reduction,
                        const TripletState<T>& state) {
  ExactSum total;
  ExactSum divisor;
  for (int64_t t = 0; t < problem.n; ++t) {
    const uint8_t wanted = reduction == Reduction::mean_active ? kActive : kCounted;
    total.add(state.term[t]);
    if ((state.flags[t] & wanted) != 0) {
      divisor.add(problem.weights == nullptr ? 1.0 : problem.weights[t]);
    }
  }
  const double scale = reduction == Reduction::sum ? 1
                       : divisor.value() == 0      ? 0
                                                   : 1 / divisor.value();
  const double loss = reduction == Reduction::sum ? total.value()
                      : scale == 0                ? 0
                                                  : total.value() / divisor.value();
  *static_cast<T*>(problem.loss) = static_cast<T>(loss);
  return scale;
}

template <class T>
inline void write_statistics(const TripletProblem& problem, const TripletState<T>& state) {
  double valid = 0;
  double active = 0;
  double farthest = 0;
  double nearest = 0;
  ExactSum sum_ap;
  ExactSum sum_an;
  ExactSum norms;
  for (int64_t t = 0; t < problem.n; ++t) {
    if ((state.flags[t] & kValid) == 0) continue;
    const double d_ap = state.distance[kAP][t];
    const double d_an = state.distance[kAN][t];
    // The negated comparisons let NaN win, as torch.max and torch.min do.
    if (valid == 0 || !(d_ap <= farthest)) farthest = farthest != farthest ? farthest : d_ap;
    if (valid == 0 || !(d_an >= nearest)) nearest = nearest != nearest ? nearest : d_an;
    valid += 1;
    active += (state.flags[t] & kActive) != 0;
    sum_ap.add(d_ap);
    sum_an.add(d_an);
  }
  const int64_t rows = problem.rows[0].n;
  for (int64_t i = 0; i < rows; ++i) norms.add(state.norm[0][i]);
  const double some = valid == 0 ? 1 : valid;
  const double stats[7] = {valid,
                           active / some,
                           sum_ap.value() / some,
                           sum_an.value() / some,
                           farthest,
                           nearest,
                           norms.value() / (rows == 0 ? 1 : static_cast<double>(rows))};
  for (int s = 0; s < 7; ++s) problem.stats[s] = stats[s];
}

// The gradient of one set of rows, from all triplets that touch it.
template <class T>
struct SetGradient {
  const TripletProblem& problem;
  const TripletState<T>& state;
  KeyForm key;
  double scale;  // common to all coefficients
  int set;       // its first role

  FM_INLINE int64_t row_of(int role, int64_t t) const {
    return problem.index[role] == nullptr ? t : problem.index[role][t];
  }
  // Whether triplet t moves its row in this role: a role sees the two pairs that it is in.
  FM_INLINE bool moves(int role, int64_t t) const {
    const Pair first = role == 2 ? kAN : kAP;
    const Pair second = role == 0 ? kAN : kPN;
    return state.coefficient[first][t] != 0 || state.coefficient[second][t] != 0;
  }

  template <class Visit>
  FM_INLINE void each_touch(const Visit& visit) const {
    for (int role = 0; role < 3; ++role) {
      if (problem.first_role[role] != set) continue;
      for (int64_t t = 0; t < problem.n; ++t) {
        if (moves(role, t)) visit(role, t);
      }
    }
  }

  inline void list_touches() const {
    int64_t* offset = state.offset;
    for (int64_t i = 0; i < problem.rows[set].n + 2; ++i) offset[i] = 0;
    each_touch([&](int role, int64_t t) { ++offset[row_of(role, t) + 2]; });
    for (int64_t i = 0; i < problem.rows[set].n; ++i) offset[i + 2] += offset[i + 1];
    each_touch(
        [&](int role, int64_t t) { state.touch[offset[row_of(role, t) + 1]++] = 3 * t + role; });
  }

  inline void gather() const {
    list_touches();
    parallel_ranges(
        state.threads, problem.rows[set].n, 32, [&](int64_t begin, int64_t end, int thread) {
          GradientRow<T> gradient(key, problem.dim, state.buffer + thread * problem.dim);
          for (int64_t i = begin; i < end; ++i) {
            gradient.start(state.rows[set], i);
            for (int64_t at = state.offset[i]; at < state.offset[i + 1]; ++at) {
              add_touch(gradient, static_cast<int>(state.touch[at] % 3), state.touch[at] / 3);
            }
            gradient.finish(static_cast<T*>(problem.grad[set]) + i * problem.dim, false);
          }
        });
  }

  FM_INLINE void add_touch(GradientRow<T>& gradient, int role, int64_t t) const {
    const auto add = [&](int other, Pair pair) {
      const double coefficient = state.coefficient[pair][t];
      if (coefficient != 0) {
        gradient.add(state.rows[other], row_of(other, t), coefficient * scale);
      }
    };
    if (role != 0) add(0, role == 1 ? kAP : kAN);
    if (role != 1) add(1, role == 0 ? kAP : kPN);
    if (role != 2) add(2, role == 0 ? kAN : kPN);
  }
};

// For reduction "none": the losses themselves, and the caller's cotangent into the slopes.
template <class T>
inline void keep_terms(const TripletProblem& problem, const TripletState<T>& state) {
  const auto* cotangent = static_cast<const T*>(problem.cotangent);
  for (int64_t t = 0; t < problem.n; ++t) {
    if (problem.loss != nullptr) static_cast<T*>(problem.loss)[t] = static_cast<T>(state.term[t]);
    if (cotangent == nullptr) continue;
    for (double* coefficient : state.coefficient) {
      if (coefficient[t] != 0)
        coefficient[t] *= static_cast<double>(cotangent[t * problem.cotangent_stride]);
    }
  }
}

template <class T, class Distance, class Loss>
inline void triplet_loss(Reduction reduction, TripletProblem& problem) {
  Arena arena(problem.workspace);
  TripletState<T> state;
  lay_out_triplet(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = 8.0 * static_cast<double>(problem.n) * static_cast<double>(problem.dim);
  state.threads = work < kSerialWork ? 1 : usable_threads(problem.threads);
  const KeyForm key = key_form<Distance>(problem.normalize);
  measure_sets(key, problem, state);
  const TripletTerms<T, Distance, Loss> terms{problem, state, key};
  parallel_ranges(state.threads, problem.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) terms.evaluate(t);
  });
  double scale = 1;
  if (reduction == Reduction::none) {
    keep_terms(problem, state);
  } else {
    scale = sum_terms(problem, reduction, state);
  }
  if (problem.stats != nullptr) write_statistics(problem, state);
  for (int set = 0; set < 3; ++set) {
    if (problem.first_role[set] == set && problem.grad[set] != nullptr) {
      SetGradient<T>{problem, state, key, scale, set}.gather();
    }
  }
  __atomic_fetch_add(&call_counters.triplet, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
