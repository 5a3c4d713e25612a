// SPDX-License-Identifier: BSD-3-Clause
// Computes the triplet loss of all that a rule lists, without a list: a block an anchor applies the
// rule and evaluates each triplet twice, once for its positive and once for its negative. What it
// leaves is a row of coefficients by reference, from which pairwise.cuh makes gradients.
//
// Why so: how many triplets there are is known on the device only, so nothing may be as long as a
// list, and nobody may wait. Each coefficient is added up by one warp or thread, in a fixed order.
#pragma once

#include "list_rules.cuh"
#include "triplet_terms.cuh"
#include "triplet_totals.cuh"

namespace flashmetric::cuda {

// The triplets of one anchor. Margins, weights and cotangents of the loss are by anchor.
struct ListTerms {
  const AnchorView& anchor;
  const TripletState& loss;
  double factor = 1;  // of coefficients

  __device__ ListTerms(const AnchorView& of, const TripletState& state) : anchor(of), loss(state) {
    if (loss.cotangent == nullptr) return;
    const int64_t at = anchor.anchor() * loss.cotangent_stride;
    factor = loss.rows[0].dtype == DType::float64 ? number_at<double>(loss.cotangent, at)
                                                  : number_at<float>(loss.cotangent, at);
  }

  __device__ Term of(int64_t p, int64_t n) const {
    Term term;
    const double key_ap = anchor.value(kPositive, p);
    if (n >= 0) {
      const TripletKeys keys{{key_ap, anchor.value(kNegative, n), 0}};
      evaluate_valid(loss, anchor.anchor(), keys, term);
    } else {
      evaluate_incomplete(loss, anchor.anchor(), p, n, TripletKeys{{key_ap, 0, 0}}, term);
    }
    return term;
  }

  // 0 stays 0, whatever the factor.
  __device__ double scaled(double coefficient) const {
    return coefficient == 0 ? 0 : coefficient * factor;
  }
};

// Terms and sums, and the coefficient of each positive: a warp a positive.
template <class Policy>
__device__ void evaluate_positives(const ListTerms& terms, TripletSums& sums) {
  const AnchorView& anchor = terms.anchor;
  const Ranges& range = anchor.range;
  double* const coefficient = anchor.state.coefficient;
  for (int64_t p = range.begin[kPositive] + warp_of(); p < range.end[kPositive]; p += kListWarps) {
    double own = 0;
    BlockRule<Policy>::each(anchor, p, [&](bool has, int64_t n) {
      if (!has) return;
      const Term term = terms.of(p, n);
      count_term(terms.loss, anchor.anchor(), term, sums);
      own += terms.scaled(term.coefficient[kAP]);
    });
    if (coefficient == nullptr) continue;
    own = warp_sum(own);
    if (lane_of() == 0) coefficient[anchor.own(anchor.row(kPositive, p))] = own;
  }
}

// The coefficients of the negatives of this thread.
template <class Policy>
__device__ void evaluate_negatives(const ListTerms& terms) {
  const AnchorView& anchor = terms.anchor;
  double* const coefficient = anchor.state.coefficient;
  double* const lost = anchor.state.lost;
  if (coefficient == nullptr) return;
  BlockRule<Policy>::each_own(anchor, [&](int64_t p, int64_t n) {
    const double own = terms.scaled(terms.of(p, n).coefficient[kAN]);
    const int64_t at = anchor.own(anchor.row(kNegative, n));
    if (lost == nullptr) {
      coefficient[at] += own;
      return;
    }
    ExactSum sum{coefficient[at], lost[at]};
    sum.add(own);
    coefficient[at] = sum.sum;
    lost[at] = sum.lost;
  });
}

// Sets the coefficients of references to 0.
__device__ inline void clear_coefficients(const AnchorView& anchor) {
  const ListState& state = anchor.state;
  if (state.coefficient == nullptr) return;
  for (int64_t j = threadIdx.x; j < anchor.n_ref(); j += kListThreads) {
    state.coefficient[anchor.own(j)] = 0;
    if (state.lost != nullptr) state.lost[anchor.own(j)] = 0;
  }
}

// Adds what rounding took from them. What the block has added must be there.
__device__ inline void restore_coefficients(const AnchorView& anchor) {
  const ListState& state = anchor.state;
  if (state.lost == nullptr) return;
  for (int64_t j = threadIdx.x; j < anchor.n_ref(); j += kListThreads) {
    const int64_t at = anchor.own(j);
    state.coefficient[at] = ExactSum{state.coefficient[at], state.lost[at]}.value();
  }
}

template <class Policy>
__global__ void __launch_bounds__(kListThreads)
    evaluate_lists(const __grid_constant__ ListState state,
                   const __grid_constant__ TripletState loss) {
  __shared__ ListShared shared;
  __shared__ TripletSums of_warp[kListWarps];
  AnchorView anchor(state, blockIdx.x);
  clear_coefficients(anchor);
  __syncthreads();
  split_sides(anchor, shared);
  BlockRule<Policy>::prepare(anchor, shared);
  const ListTerms terms(anchor, loss);
  TripletSums sums;
  evaluate_positives<Policy>(terms, sums);
  evaluate_negatives<Policy>(terms);
  sum_in_block(sums, of_warp, loss.stats != nullptr);
  restore_coefficients(anchor);
  if (threadIdx.x != 0) return;
  const int64_t i = anchor.anchor();
  loss.block_sums[i] = sums;
  if (loss.reduction != Reduction::none || loss.loss == nullptr) return;
  if (loss.rows[0].dtype == DType::float64) {
    static_cast<double*>(loss.loss)[i] = sums.total.value();
  } else {
    static_cast<float*>(loss.loss)[i] = static_cast<float>(sums.total.value());
  }
}

// One block. The first statistic counts anchors here, of the others' triplets.
__global__ void __launch_bounds__(kFinishThreads)
    finish_lists(const __grid_constant__ TripletState loss) {
  __shared__ TripletSums shared[kFinishThreads / kWarp];
  const TripletSums sums = sums_of_blocks(loss, shared, loss.n);
  if (threadIdx.x == 0) write_loss(loss, sums);
  if (loss.stats == nullptr) return;
  int64_t valid = 0;
  for (int64_t first = 0; first < loss.n; first += kFinishThreads) {
    const int64_t i = first + threadIdx.x;
    valid += __syncthreads_count(i < loss.n && loss.block_sums[i].valid != 0);
  }
  if (threadIdx.x == 0) loss.stats[0] = static_cast<double>(valid);
}

// The keys of value_differs: eight lanes a pair.
__global__ void __launch_bounds__(kListThreads)
    write_value_rows(const __grid_constant__ MineState state, RowView<double> x, RowView<double> r,
                     KeyRows rows) {
  const int64_t pairs = rows.rows * r.n;
  const int64_t thread = int64_t{blockIdx.x} * kListThreads + threadIdx.x;
  const int64_t pair = thread / 8 < pairs ? thread / 8 : 0;  // all lanes must come along
  const double key = pair_value(state.key, x, rows.first + pair / r.n, r, pair % r.n, state.dim);
  if (thread % 8 == 0 && thread / 8 < pairs) rows.key[pair] = key;
}

template <class Out>
__global__ void __launch_bounds__(kListThreads)
    round_gradient(const double* sum, const double* scale, int64_t n, Out* gradient) {
  const int64_t at = int64_t{blockIdx.x} * kListThreads + threadIdx.x;
  if (at < n) gradient[at] = static_cast<Out>(sum[at] == 0 ? 0 : sum[at] * *scale);
}

}  // namespace flashmetric::cuda
