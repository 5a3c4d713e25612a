// SPDX-License-Identifier: BSD-3-Clause
// Mining: prepare -> tiles rank -> keys judge what is left. The choice itself is made where it is
// needed (decide.cuh).
#include "../mining.h"
#include "measure.cuh"
#include "pack.cuh"
#include "reduce_keys.cuh"
#include "stages.h"
#include "tiles.h"

namespace flashmetric::cuda {
namespace {

// Below this many pairs keys alone are faster than the five kernels of ranking.
constexpr int64_t kFewPairs = int64_t{1} << 18;

// Of a few tiles, the first: four instead cost 4096 rows 2 of 87 us on an H200, more than the
// candidates that they spare.
constexpr int kSurveyed = 1;

bool ranks_by_tiles(const MineProblem& problem, const KeyFacts& key, Path path) {
  if (path == Path::fma || !key.of_products() || problem.dim == 0) return false;
  if (problem.query.n == 0 || problem.ref.n == 0) return false;
  if (problem.labels.relation != Relation::classes) return false;
  return path_is_forced() || problem.query.n * problem.ref.n >= kFewPairs;
}

int32_t slots_for(int64_t rows) {
  int64_t slots = 256;
  while (slots < 2 * rows) slots *= 2;
  return static_cast<int32_t>(slots);
}

int32_t padded(int64_t rows) {
  return static_cast<int32_t>((rows + kPadRows - 1) / kPadRows * kPadRows);
}

void lay_out_set(Arena& arena, int64_t rows, const Products& products, RankedSet& set) {
  set.slot = arena.take<int32_t>(rows);
  set.order = arena.take<int32_t>(set.padded);
  set.position = arena.take<int32_t>(rows);
  set.packed = arena.take<uint16_t>(int64_t{products.stored()} * set.padded * kFeatures);
  set.slack = arena.take<float>(set.padded);
  if (products.split) set.wide_slack = arena.take<double>(set.padded);
  set.start = arena.take<uint16_t>(int64_t{kStartTerms} * set.padded);
  set.shift = arena.take<float>(set.padded);
  set.run_begin = arena.take<int32_t>(set.padded);
  set.run_end = arena.take<int32_t>(set.padded);
}

template <class T>
void launch_prepare_of(const MineState& state, cudaStream_t stream, Launches& launches) {
  const RowView<T> query = view_as<T>(state.query);
  const RowView<T> ref = view_as<T>(state.ref);
  const bool two_sets = !state.labels.symmetric;
  measure_rows<<<blocks_for(query.n, kMeasureThreads / 8), kMeasureThreads, 0, stream>>>(state,
                                                                                         query, 0);
  if (two_sets && ref.n > 0) {
    measure_rows<<<blocks_for(ref.n, kMeasureThreads / 8), kMeasureThreads, 0, stream>>>(state, ref,
                                                                                         1);
  }
  launches.check("measure_rows");
  if (!state.by_tiles) return;
  const unsigned slices = blocks_for(state.dim, kSlice);
  start(launches, "group_classes", group_classes<T>,
        slices + blocks_for(state.classes.slots, kMeasureThreads), kMeasureThreads, 0, stream,
        state, ref, slices);
  for (int side = two_sets ? 1 : 0; side >= 0; --side) {
    start(launches, "pack_rows", pack_rows<T>, blocks_for(state.ranked[side].padded, kPackRows),
          kPackThreads, 0, stream, state, side == 0 ? query : ref, side);
  }
}

void launch_keys(const MineState& state, int multiprocessors, cudaStream_t stream,
                 Launches& launches) {
  if (!launches.fine()) return;
  // Behind tiles there is mostly nothing to do: not more blocks than there is room for.
  const int64_t most = state.by_tiles ? 1 + multiprocessors / state.key_splits : INT32_MAX;
  const int64_t groups = (state.query.n + kKeyTile - 1) / kKeyTile;
  const dim3 grid(static_cast<unsigned>(groups < most ? groups : most),
                  static_cast<unsigned>(state.key_splits));
  with_value<Form::difference, Form::product, Form::absolute, Form::power, Form::maximum,
             Form::overlap>(state.key.form, [&](auto form) {
    start(launches, "reduce_keys", reduce_keys<form.value>, grid, kKeyThreads, 0, stream, state);
  });
}

}  // namespace

MineState mine_state(const MineProblem& problem, const Names& names, const DeviceFacts& facts) {
  MineState state;
  static_cast<Compared&>(state) = compared_of(problem, names);
  visit_by_index(Miners{}, names.mining, [&](auto policy) {
    state.farthest[kPositive] = decltype(policy)::positive == Seek::farthest;
    state.farthest[kNegative] = decltype(policy)::negative == Seek::farthest;
  });
  const Path path = path_of(facts.major, facts.minor);
  state.by_tiles = ranks_by_tiles(problem, state.key, path);
  const TileShape& shape = shape_of(path);
  state.tile_splits =
      column_splits(shape, padded(problem.query.n), padded(problem.ref.n), facts.multiprocessors);
  state.survey_tiles = survey_of(shape, padded(problem.ref.n), state.tile_splits, kSurveyed);
  state.streams = state.tile_splits * shape.streams;
  const int64_t groups = (problem.query.n + kKeyTile - 1) / kKeyTile;
  const int64_t tiles = (problem.ref.n + kKeyTile - 1) / kKeyTile;
  int64_t splits = state.by_tiles ? kMaxKeySplits : 8 * facts.multiprocessors / (groups + 1);
  splits = splits < tiles ? splits : tiles;
  splits = splits < kMaxKeySplits ? splits : kMaxKeySplits;
  state.key_splits = static_cast<int32_t>(splits > 1 ? splits : 1);
  return state;
}

void lay_out_zeros(Arena& arena, const MineProblem& problem, MineState& state) {
  const bool one_set = problem.symmetric;
  state.tally = arena.take<Tally>(1);
  state.is_by_keys = arena.take<int32_t>(problem.query.n);
  if (!state.by_tiles) return;
  ClassTable& classes = state.classes;
  classes.slots = slots_for(one_set ? problem.ref.n : problem.query.n + problem.ref.n);
  classes.owner = arena.take<int32_t>(classes.slots);
  classes.count[0] = arena.take<int32_t>(classes.slots);
  classes.count[1] = one_set ? classes.count[0] : arena.take<int32_t>(classes.slots);
  for (int side = 0; side < (one_set ? 1 : 2); ++side) {
    state.ranked[side].taken = arena.take<int32_t>(classes.slots);
    state.ranked[side].padded = padded(side == 0 ? problem.query.n : problem.ref.n);
  }
  for (uint32_t*& threshold : state.threshold) {
    threshold = arena.take<uint32_t>(problem.query.n);
  }
  state.surveyed = arena.take<int32_t>(state.ranked[0].padded / kMmaShape.rows);
}

void lay_out_rest(Arena& arena, const MineProblem& problem, MineState& state) {
  const bool one_set = problem.symmetric;
  lay_out_numbers(arena, state);
  if (state.by_tiles) lay_out_frame(arena, state);
  state.by_keys = arena.take<int32_t>(problem.query.n);
  for (PartialBest*& partial : state.partial) {
    if (!state.split) partial = arena.take<PartialBest>(state.key_splits * problem.query.n);
  }
  if (!state.by_tiles) return;
  ClassTable& classes = state.classes;
  classes.begin[0] = arena.take<int32_t>(classes.slots);
  classes.begin[1] = one_set ? classes.begin[0] : arena.take<int32_t>(classes.slots);
  const Products products = state.products();
  lay_out_set(arena, problem.query.n, products, state.ranked[0]);
  if (!one_set) lay_out_set(arena, problem.ref.n, products, state.ranked[1]);
  if (one_set) state.ranked[1] = state.ranked[0];
  state.irregular = arena.take<int32_t>(kIrregular);
  const int64_t lists = problem.query.n * state.streams;
  for (int role = 0; role < (state.split ? 1 : 2); ++role) {
    state.n_candidates[role] = arena.take<int32_t>(lists);
    state.candidates[role] = arena.take<Candidate>(lists * kCandidates);
  }
}

void launch_prepare(const MineState& state, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  with_dtype(state.query.dtype,
             [&](auto type) { launch_prepare_of<decltype(type)>(state, stream, launches); });
}

void launch_mining(const MineState& state, const DeviceFacts& facts, cudaStream_t stream,
                   Launches& launches) {
  launch_prepare(state, stream, launches);
  if (!launches.fine()) return;
  if (state.by_tiles) {
    __atomic_fetch_add(&call_counters.tiles, int64_t{1}, __ATOMIC_RELAXED);
    launch_tiles(state, facts, stream, launches);
  } else {
    __atomic_fetch_add(&call_counters.keys, int64_t{1}, __ATOMIC_RELAXED);
  }
  launch_keys(state, facts.multiprocessors, stream, launches);
}

void launch_choices(const MineState& state, const Chosen& chosen, cudaStream_t stream,
                    Launches& launches) {
  if (!launches.fine()) return;
  const int lanes = kKeyLanes * (state.query.n <= kFewQueries ? 4 : 1);
  const unsigned blocks = blocks_for(state.query.n, kChooseThreads / lanes);
  with_dtype(state.query.dtype, [&](auto type) {
    using T = decltype(type);
    const RowView<T> x = view_as<T>(state.query);
    const RowView<T> r = view_as<T>(state.ref);
    with_value<Keys::difference, Keys::product, Keys::any>(keys_of(state.key), [&](auto keys) {
      with_value<4, 1>(lanes / kKeyLanes, [&](auto teams) {
        start(launches, "choose", choose<T, keys.value, teams.value>, blocks, kChooseThreads, 0,
              stream, state, x, r, chosen);
      });
    });
  });
}

}  // namespace flashmetric::cuda
