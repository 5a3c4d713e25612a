// SPDX-License-Identifier: BSD-3-Clause
// One anchor of a dense loss, as the block that judges it sees it: who is a positive or a negative,
// the distances, and float64 keys wherever h leaves a doubt.
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

// Never inlined: rules ask for keys and distances in several places each.
template <class T>
__device__ __noinline__ double exact_key(const DenseState& state, const RowView<T>& x, int64_t i,
                                         const RowView<T>& r, int64_t j) {
  return pair_key(state.key, x, i, r, j, state.dim);
}
template <class T>
__device__ __noinline__ double exact_value(const DenseState& state, const RowView<T>& x, int64_t i,
                                           const RowView<T>& r, int64_t j) {
  return pair_value(state.key, x, i, r, j, state.dim);
}
static __device__ __noinline__ double distance_of(const KeyForm& form, double key) {
  return form.value(key);
}
static __device__ __noinline__ double slope_of(const KeyForm& form, double key) {
  return form.slope(key);
}

// From h of packed rows to distances, and back.
struct HalfScale {
  bool root;              // a distance is a square root
  double unit;            // keys per h
  float root_unit;        // distance per root of 2 h
  float constant, slope;  // of a distance that is no root: where h is 0; and its slope

  __device__ HalfScale(const DenseState& state, double frame_unit)
      : root(state.curve == Curve::square_root),
        unit((state.key.form == Form::difference ? 2 : 1) / frame_unit / frame_unit),
        root_unit(static_cast<float>(1 / frame_unit)),
        constant(root ? 0 : static_cast<float>(distance_of(state.key, 0))),
        slope(root ? 0 : static_cast<float>(slope_of(state.key, 1))) {}

  __device__ double half(double key) const { return key / unit; }
  __device__ float distance(float h, bool product) const {
    if (!product) h = h > 0 ? h : h != h ? h : 0;
    return root ? ::sqrtf(2 * h) * root_unit : h * static_cast<float>(unit) + constant;
  }
  // As distances.h has it, of a distance from above.
  __device__ float slope_at(float d) const {
    if (!root) return slope;
    return d == 0 ? 0 : 1 / d + (d - d);
  }
  // How far a distance from above can be off if its h is by `error`, at most: the root of 2 h by
  // 2 error / root(2 h), or by root(6 error) where h is below 2 error; thrice the former is above
  // both. And by the roundings of the distance.
  __device__ float uncertainty(float d, float error) const {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    const float rounded = ::fabsf(d) * u;
    if (!root) return rounded + (error * static_cast<float>(unit) + ::fabsf(constant) * u);
    const float least = root_unit * ::sqrtf(4 * error);
    return root_unit / (d > least ? d : least) * (6 * error * root_unit) + rounded;
  }
};

// What the threads of a block share.
struct RowShared {
  double sums[kRowWarps][16];
  int32_t n_positive, n_negative;
};

// The sums over the block, in a fixed tree; all threads have them.
template <int n>
__device__ void sum_block(ExactSum (&own)[n], RowShared& shared) {
  static_assert(2 * n <= 16);
  for (int mask = 1; mask < kWarp; mask *= 2) {
#pragma unroll
    for (int v = 0; v < n; ++v) own[v].add(from_lane(own[v], mask));
  }
#pragma unroll
  for (int v = 0; v < n; ++v) {
    if (lane_of() == 0) shared.sums[warp_of()][2 * v] = own[v].sum;
    if (lane_of() == 0) shared.sums[warp_of()][2 * v + 1] = own[v].lost;
  }
  __syncthreads();
#pragma unroll
  for (int v = 0; v < n; ++v) {
    own[v] = {};
    for (const auto& of_warp : shared.sums) own[v].add({of_warp[2 * v], of_warp[2 * v + 1]});
  }
  __syncthreads();
}

// The largest over the block; NaN if one is.
__device__ inline double largest_in_block(double own, RowShared& shared) {
  for (int mask = 1; mask < kWarp; mask *= 2) {
    own = larger(own, __shfl_xor_sync(kAllLanes, own, mask));
  }
  if (lane_of() == 0) shared.sums[warp_of()][0] = own;
  __syncthreads();
  for (const auto& of_warp : shared.sums) own = larger(own, of_warp[0]);
  __syncthreads();
  return own;
}

// Whether h are keys.
template <class H>
constexpr bool kWide = sizeof(H) == sizeof(double);

template <class T, class H>
struct DenseRow {
  const DenseState& state;
  const RowView<T>& x;
  const RowView<T>& r;
  RowShared& shared;
  int64_t i;  // the anchor
  Slot<T, H>* slot;
  uint32_t* positive;
  uint32_t* negative;
  uint32_t* near;
  HalfScale scale;

  __device__ DenseRow(const DenseState& of, const RowView<T>& query, const RowView<T>& ref,
                      RowShared& block, int64_t first, int64_t at)
      : state(of),
        x(query),
        r(ref),
        shared(block),
        i(first + at),
        slot(slots_of<T, H>(of, at)),
        positive(of.positive + at * (of.stride / kWarp)),
        negative(of.negative + at * (of.stride / kWarp)),
        near(of.near + at * (of.stride / kWarp)),
        scale(of, of.packed ? frame_of(of).unit : 1.0) {}

  // A word of the row at a time, a lane a column; the last lanes may have none. All lanes come.
  template <class Visit>
  __device__ void each_word(const Visit& visit) const {
    for (int64_t word = warp_of(); word * kWarp < r.n; word += kRowWarps) {
      visit(word, word * kWarp + lane_of());
    }
  }
  __device__ static bool is_set(const uint32_t* bits, int64_t word) {
    return (bits[word] >> lane_of() & 1U) != 0;
  }

  // The keys of the columns of the lanes that `some` names.
  __device__ double keys_at(unsigned some, int64_t j) const {
    return lane_keys(some, j < r.n ? j : r.n - 1,
                     [&](int64_t other) { return exact_key(state, x, i, r, other); });
  }
  // Of a column whose bit of `mine` is set: h if that is the key already.
  __device__ double key_at(int64_t j, bool mine) const {
    if constexpr (kWide<H>) return mine ? static_cast<double>(slot[j].h) : 0.0;
    const unsigned some = __ballot_sync(kAllLanes, mine);
    return some == 0 ? 0.0 : keys_at(some, j);
  }
  // The key as a value: keys.cuh says where that is another number. Of the lanes that `some` names.
  __device__ double value_at(unsigned some, int64_t j, double key) const {
    if constexpr (sizeof(T) == sizeof(double)) {
      if (!value_differs<T>(state.key)) return key;
      return lane_keys(some, j < r.n ? j : r.n - 1,
                       [&](int64_t other) { return exact_value(state, x, i, r, other); });
    }
    return key;
  }
  __device__ double distance(double key) const { return distance_of(state.key, key); }
  __device__ double slope(double key) const { return slope_of(state.key, key); }

  // What h of packed rows can be off by; 4 u, for what is measured and for thresholds, which round
  // once, leave room for the sums.
  __device__ float error(int64_t j) const {
    const float own = state.rows[0].slack[i];
    const float other = state.rows[1].slack[j];
    const float size = ::fabsf(static_cast<float>(slot[j].h));
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    return (own > 0 ? own : 0) + (other > 0 ? other : 0) + size * u;
  }
  __device__ float half_distance(int64_t j) const {
    return scale.distance(static_cast<float>(slot[j].h), state.key.form == Form::product);
  }

  // Whether the gradient of the pair must be taken by difference, and so must its distance.
  __device__ bool is_near(int64_t j) const {
    if (!state.regular(0, i) || !state.regular(1, j)) return true;
    if (state.key.form != Form::difference) return false;
    const float lengths = state.rows[0].half[i] + state.rows[1].half[j];
    double h = static_cast<double>(slot[j].h);
    if constexpr (kWide<H>) h = scale.half(h);
    return h <= static_cast<double>(lengths) * kNear;
  }

  // Finds out who is who, and measures near pairs. `visit(word, j, role)` sees each column.
  template <class Visit>
  __device__ void split(const Visit& visit) const {
    if (threadIdx.x == 0) shared.n_positive = shared.n_negative = 0;
    __syncthreads();
    each_word([&](int64_t word, int64_t j) {
      const Role role = j < r.n ? state.labels.role(i, j) : kNeither;
      const bool close = state.packed && role != kNeither && is_near(j);
      const unsigned positives = __ballot_sync(kAllLanes, role == kPositive);
      const unsigned negatives = __ballot_sync(kAllLanes, role == kNegative);
      const unsigned measured = __ballot_sync(kAllLanes, close);
      if (lane_of() == 0) {
        positive[word] = positives;
        negative[word] = negatives;
        near[word] = measured;
        atomicAdd(&shared.n_positive, __popc(positives));
        atomicAdd(&shared.n_negative, __popc(negatives));
      }
      if constexpr (!kWide<H>) {
        if (measured != 0) {
          const double key = keys_at(measured, j);
          if (close) slot[j].h = static_cast<H>(scale.half(key));
        }
      }
      visit(word, j, role);
    });
    __syncthreads();
  }

  // No coefficients, of a row without terms.
  __device__ void clear() const {
    each_word([&](int64_t word, int64_t j) {
      if (lane_of() == 0) near[word] = 0;
      if (j < r.n) slot[j].c = 0;
    });
  }
};

// The distances of all positives and negatives, for the statistics; before coefficients come.
template <class T, class H>
__device__ void note_distances(const DenseRow<T, H>& row, RowTotals& totals) {
  ExactSum sums[2];
  double farthest = -kNever;
  double nearest = kNever;
  double least = kNever;  // no negative that is nearest has a larger h
  row.each_word([&](int64_t word, int64_t j) {
    const bool is_positive = row.is_set(row.positive, word);
    const double d_ap = row.distance(row.key_at(j, is_positive));
    if (is_positive) {
      sums[0].add(d_ap);
      farthest = farther(farthest, d_ap);
    }
    if (!row.is_set(row.negative, word)) return;
    if constexpr (kWide<H>) {
      const double d_an = row.distance(static_cast<double>(row.slot[j].h));
      sums[1].add(d_an);
      nearest = nearer(nearest, d_an);
    } else {
      sums[1].add(static_cast<double>(row.half_distance(j)));
      const double h = static_cast<double>(row.slot[j].h);
      least = ::fmin(least, h + static_cast<double>(row.error(j)));
    }
  });
  sum_block(sums, row.shared);
  if constexpr (!kWide<H>) {
    least = -largest_in_block(-least, row.shared);
    row.each_word([&](int64_t word, int64_t j) {
      const bool is_negative = row.is_set(row.negative, word);
      const double h = is_negative ? static_cast<double>(row.slot[j].h) : 0;
      const double error = is_negative ? static_cast<double>(row.error(j)) : 0;
      const bool open = is_negative && !(h - error > least);  // NaN is among them
      const double d_an = row.distance(row.key_at(j, open));
      if (open) nearest = nearer(nearest, d_an);
    });
  }
  totals.sum_ap = sums[0].value();
  totals.sum_an = sums[1].value();
  totals.max_ap = largest_in_block(farthest, row.shared);
  totals.min_an = -largest_in_block(-nearest, row.shared);
  totals.n_ap = row.shared.n_positive;
  totals.n_an = row.shared.n_negative;
}

}  // namespace flashmetric::cuda
