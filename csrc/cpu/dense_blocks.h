// SPDX-License-Identifier: BSD-3-Clause
// A dense loss of one set of rows with itself, by pairs of blocks: half the distances, and both
// gradients of every pair from one coefficient. For class ids with few positives, whose terms need
// numbers of the two anchors and their distance only (block_rules.h).
//
// Algorithm: measure the positives; then, for a few rounds at a time (block_slots.h):
//   for each pair of blocks (parallel): inner products -> h -> the rule's coefficients -> its slot
//   for each block (parallel): P_I += C Y_J and P_J += C^T Y_I from the slots     (block_gather.h)
// and at the end the positives' share, once the counts of their triplets are known.
//
// Numerics: as in dense.h; a sum of kBlock products in the dtype goes to float64.
//
// Determinism: a slot depends on its pair only, and every row has one owner who adds the slots in
// the order of the rounds.
#pragma once

#include "block_gather.h"
#include "block_hinges.h"
#include "block_measure.h"
#include "dense_layout.h"
#include "dense_totals.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Slots that are filled before they are used: a few L2 caches, and tasks enough for the threads.
constexpr int64_t kSlotBytes = int64_t{4} << 20;

template <class T>
inline void lay_out_blocks(Arena& arena, const DenseProblem& problem, bool counts,
                           BlockState<T>& blocks, GatherScratch<T>*& scratch) {
  const Rounds rounds{blocks_of(problem.query.n)};
  const int64_t padded = blocks.padded = rounds.blocks * kBlock;
  blocks.positive_key = arena.take<double>(kMostPositives * padded);
  blocks.count = arena.take<int32_t>(kMostPositives * padded);
  for (T*& limit : blocks.limit) limit = arena.take<T>((counts ? kMostPositives : 1) * padded);
  for (T*& limit : blocks.member_limit) {
    if (counts && problem.stats != nullptr) limit = arena.take<T>(kMostPositives * padded);
  }
  blocks.members = arena.take<int32_t>(padded);
  blocks.widest = arena.take<T>(padded);
  blocks.reach = arena.take<T>(padded);
  blocks.valid = arena.take<T>(padded);
  const int threads = problem.threads > 1 ? problem.threads : 1;
  scratch = arena.take<GatherScratch<T>>(threads);
  for (int thread = 0; thread < threads; ++thread) {
    GatherScratch<T> own{arena.take<T>(kSquare), arena.take<T>(padded), arena.take<int32_t>(padded),
                         arena.take<double>(problem.dim)};
    if (!arena.counting()) scratch[thread] = own;
  }
  constexpr int64_t bytes = kSquare * sizeof(T) + kNearCapacity * sizeof(BlockPair<T>);
  blocks.rounds = kSlotBytes / (bytes * (rounds.blocks > 0 ? rounds.blocks : 1));
  blocks.rounds = blocks.rounds < 1 ? 1 : blocks.rounds;
  blocks.rounds = blocks.rounds > rounds.count() ? rounds.count() : blocks.rounds;
  blocks.slots = arena.take<BlockSlot<T>>(blocks.rounds * rounds.blocks);
  for (int64_t s = 0; s < blocks.rounds * rounds.blocks; ++s) {
    BlockSlot<T> slot{};
    slot.c = arena.take<T>(kSquare);
    slot.near = arena.take<BlockPair<T>>(kNearCapacity);
    slot.count = counts ? arena.take<uint8_t>(int64_t{2} * kMostPositives * kBlock) : nullptr;
    if (!arena.counting()) blocks.slots[s] = slot;
  }
}

template <class T, Curve curve, class Rule>
class DenseBlocks {
 public:
  DenseBlocks(const DenseProblem& problem, DenseState<T>& state, BlockState<T>& blocks,
              const GatherScratch<T>* scratch, KeyForm key)
      : problem_(problem),
        state_(state),
        blocks_(blocks),
        scratch_(scratch),
        rounds_{blocks_of(state.query.n)},
        rule_{{problem, state, blocks, key, {key, static_cast<double>(state.frame.unit), 1.0}}},
        key_(key) {}

  // False, and nothing written, where only the rows one by one will do.
  inline bool run(DenseReduction reduction) {
    if (!suits()) return false;
    prepare();
    for (int64_t t = 0; t < rounds_.count(); t += blocks_.rounds) {
      const int64_t left = rounds_.count() - t;
      if (!visit_rounds(t, t + (left < blocks_.rounds ? left : blocks_.rounds))) return false;
    }
    parallel_ranges(state_.threads, state_.query.n, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) total_row(static_cast<int32_t>(i));
    });
    const DenseTotals totals = sum_rows(state_);
    const KindScales scales = scales_of(reduction, Rule::of_pairs, totals);
    write_dense_value(problem_, state_, reduction, scales, totals);
    if (problem_.stats != nullptr) write_dense_statistics(problem_, state_, Rule::of_pairs);
    if (problem_.grad[0] != nullptr) write_gradients(scales);
    return true;
  }

 private:
  // Classes that are small enough, and every row in the tiles.
  inline bool suits() {
    blocks_.most = 0;
    for (int32_t i = 0; i < state_.query.n; ++i) {
      const int positives = rule_.positives(i);
      blocks_.most = positives > blocks_.most ? positives : blocks_.most;
    }
    uint32_t irregular = 0;
    for (int64_t word = 0; word < state_.stride / 32; ++word) {
      irregular |= state_.irregular_bits[word];
    }
    return blocks_.most <= kMostPositives && irregular == 0;
  }

  inline void prepare() {
    blocks_.all_weights = 0;
    for (int32_t i = 0; i < state_.query.n; ++i) blocks_.all_weights += rule_.weight(i);
    parallel_ranges(state_.threads, state_.query.padded(), 32,
                    [&](int64_t begin, int64_t end, int) {
                      for (auto i = static_cast<int32_t>(begin); i < end; ++i) {
                        const bool real = i < state_.query.n;
                        for (int32_t p = 0; real && p < rule_.positives(i); ++p) {
                          blocks_.positive_key[p * blocks_.padded + i] =
                              rule_.exact_key(i, rule_.positive(i, p));
                        }
                        rule_.prepare_row(i);
                        if (real) state_.totals[i] = RowTotals{};
                      }
                    });
  }

  // Every pair of rounds begin .. end - 1. False where a square has too many near pairs.
  inline bool visit_rounds(int64_t begin, int64_t end) {
    const int64_t blocks = rounds_.blocks;
    parallel_tasks(state_.threads, (end - begin) * blocks, [&](int64_t task, int thread) {
      const int64_t t = begin + task / blocks;
      const int64_t i = task % blocks;
      if (rounds_.has(t, i)) visit_pair(i, rounds_.partner(t, i), thread, blocks_.slots[task]);
    });
    for (int64_t task = 0; task < (end - begin) * blocks; ++task) {
      const bool used = rounds_.has(begin + task / blocks, task % blocks);
      if (used && blocks_.slots[task].n_near > kNearCapacity) return false;
    }
    const BlockGather<T, curve> gather{rule_, rounds_, problem_.grad[0] != nullptr};
    constexpr int parts = kBlock / kGatherRows;
    parallel_tasks(state_.threads, blocks * parts, [&](int64_t task, int thread) {
      const int first = static_cast<int>(task % parts) * kGatherRows;
      gather.add(begin, end, task / parts, first, scratch_[thread]);
    });
    return true;
  }

  FM_NOINLINE void visit_pair(int64_t row_block, int64_t col_block, int thread,
                              BlockSlot<T>& slot) const {
    const int64_t left = state_.query.n - row_block * kBlock;
    const Square<T> square{slot.c, static_cast<int32_t>(row_block * kBlock),
                           static_cast<int32_t>(col_block * kBlock),
                           left < kBlock ? static_cast<int>(left) : kBlock};
    const bool both = row_block != col_block;
    slot.n_near = 0;
    const BlockMeasure<T, curve> measure{rule_, {state_.order}};
    measure.fill(square, slot);
    if (slot.n_near > kNearCapacity) return;
    slot.sum_an = 0;
    slot.min_an = __builtin_huge_val();
    if (problem_.stats != nullptr) measure.note_distances(square, both, slot);
    if (both) {
      rule_.template visit<true>(square, slot);
    } else {
      rule_.template visit<false>(square, slot);
    }
    if (problem_.grad[0] == nullptr) return;
    for (int64_t at = int64_t{square.rows} * kBlock; at < kSquare; ++at) square.c[at] = 0;
    if (!both && !Rule::of_pairs) add_transposed(square.c);
    settle_square(slot, scratch_[thread].square);
  }

  // Of a block with itself: c_ij is of the anchor i only, and row i needs c_ij + c_ji.
  static inline void add_transposed(T* c) {
    for (int i = 0; i < kBlock; ++i) {
      for (int j = 0; j < i; ++j) {
        const T sum = c[i * kBlock + j] + c[j * kBlock + i];
        c[i * kBlock + j] = c[j * kBlock + i] = sum;
      }
    }
  }

  FM_INLINE void total_row(int32_t i) const {
    RowTotals& totals = state_.totals[i];
    rule_.total_row(i, totals);
    if (blocks_.valid[i] == 0) return;
    for (int32_t p = 0; p < rule_.positives(i); ++p) {
      const double d = key_.value(rule_.positive_key(i, p));
      totals.sum_ap += d;
      totals.max_ap = d > totals.max_ap ? d : totals.max_ap;
    }
    totals.n_ap += rule_.positives(i);
    totals.n_an += rule_.negatives(i);
  }

  inline void write_gradients(const KindScales& scales) const {
    const DenseGradient<T> gradient{problem_, state_, key_};
    const int64_t features = gradient.features();
    auto* out = static_cast<T*>(problem_.grad[0]);
    const int64_t all = problem_.query.n * problem_.dim;
    for (int64_t at = 0; at < all && state_.query.n < problem_.query.n; ++at) out[at] = 0;
    parallel_ranges(
        state_.threads, state_.query.n, 32, [&](int64_t begin, int64_t end, int thread) {
          for (auto i = static_cast<int32_t>(begin); i < end; ++i) {
            for (int64_t k = 0; k < features; ++k) {
              state_.sums[0][i * features + k] *= scales.kind[1];
            }
            state_.weight[0][i] *= scales.kind[1];
            for (int32_t p = 0; p < rule_.positives(i); ++p) {
              const int32_t j = rule_.positive(i, p);
              const double slope = rule_.slope(i, p) + rule_.slope(j, rule_.place(j, i));
              if (slope == 0) continue;
              const double key = rule_.positive_key(i, p);
              gradient.add_pair(0, i, j, slope * scales.kind[0] * key_.slope(key));
            }
            gradient.write(0, i, 1.0, scratch_[thread].buffer);
          }
        });
  }

  const DenseProblem& problem_;
  DenseState<T>& state_;
  BlockState<T>& blocks_;
  const GatherScratch<T>* scratch_;
  Rounds rounds_;
  Rule rule_;
  KeyForm key_;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
