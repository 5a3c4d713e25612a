// SPDX-License-Identifier: BSD-3-Clause
// The entry points of cuda.h: lays out the workspace, clears what must be zero, launches.
#include "stages.h"

namespace flashmetric {

bool built_with_cuda() { return true; }

namespace cuda {

Counters call_counters{};

namespace {

// Positions of rows share 32 bits with a role, and what touches a row is triplet, pair and side.
constexpr int64_t kMostRows = int64_t{1} << 29;
constexpr int64_t kMostTriplets = INT32_MAX / (2 * kPairs);

Status refused(const char* op, const char* things, int64_t most, int64_t given) {
  Status status = "[";
  return status.append(op)
      .append("] a GPU takes at most ")
      .append(std::to_string(most))
      .append(things)
      .append("; got ")
      .append(std::to_string(given))
      .append(".");
}

Status check_sizes(const char* op, const MineProblem& problem) {
  const int64_t rows = problem.query.n + problem.ref.n;
  return rows <= kMostRows ? Status{} : refused(op, " queries and references", kMostRows, rows);
}

}  // namespace

Status check_triplets(const char* op, const char* things, int64_t n) {
  return n <= kMostTriplets ? Status{} : refused(op, things, kMostTriplets, n);
}

Status mine(MineProblem& problem, Names names, Device device) {
  if (Status status = check_sizes("mine", problem); !status.empty()) return status;
  const DeviceFacts& facts = facts_of(device.index);
  if (Status status = path_error(facts.major, facts.minor); !status.empty()) return status;
  MineState state = mine_state(problem, names, facts);
  const auto zeros = [&](Arena& arena) {
    lay_out_zeros(arena, problem, state);
    return state.tally;
  };
  const auto rest = [&](Arena& arena) { lay_out_rest(arena, problem, state); };
  return run("mine", problem.workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) {
               if (problem.query.n == 0) return;
               launch_mining(state, facts, stream, launches);
               const Chosen chosen{{problem.positive, problem.negative}, {nullptr, nullptr}};
               launch_choices(state, chosen, stream, launches);
               count(call_counters.mine);
             });
}

Status triplet(TripletProblem& problem, Names names, Device device) {
  if (Status status = check_triplets("triplet", " triplets", problem.n); !status.empty())
    return status;
  return run_triplets("triplet", problem, names, problem.workspace, device,
                      [](const TripletState& state, cudaStream_t stream, Launches& launches) {
                        launch_norms(state, stream, launches);
                        launch_triplets(state, false, stream, launches);
                        count(call_counters.triplet);
                      });
}

Status mined_triplet(MineProblem& mined, TripletProblem& loss, Names names, Device device) {
  if (Status status = check_sizes("mined_triplet", mined); !status.empty()) return status;
  if (Status status = check_triplets("mined_triplet", " triplets", loss.n); !status.empty())
    return status;
  const DeviceFacts& facts = facts_of(device.index);
  if (Status status = path_error(facts.major, facts.minor); !status.empty()) return status;
  MineState mine = mine_state(mined, names, facts);
  TripletState state = triplet_state(loss, names);
  const auto zeros = [&](Arena& arena) {
    lay_out_zeros(arena, mined, mine);
    state.tally = mine.tally;
    state.index[1] = state.index[2] = &kNoIndexYet;
    lay_out_zeros(arena, loss, state);
    return mine.tally;
  };
  const auto rest = [&](Arena& arena) {
    lay_out_rest(arena, mined, mine);
    if (mined.positive == nullptr) {
      mined.positive = arena.take<int64_t>(loss.n);
      mined.negative = arena.take<int64_t>(loss.n);
    }
    state.rows[0].numbers = mine.query.numbers;
    state.rows[1].numbers = mine.ref.numbers;
    lay_out_rest(arena, loss, state);
    state.index[1] = mined.positive;
    state.index[2] = mined.negative;
  };
  return run("mined_triplet", loss.workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) {
               if (mined.query.n > 0) {
                 launch_mining(mine, facts, stream, launches);
                 const Chosen chosen{{mined.positive, mined.negative},
                                     {state.keys[kAP], state.keys[kAN]}};
                 launch_choices(mine, chosen, stream, launches);
               }
               const bool known = keeps_keys(state.key, loss.dtype) && !loss.swap;
               launch_triplets(state, known, stream, launches);
               count(call_counters.mine);
               count(call_counters.triplet);
             });
}

}  // namespace cuda
}  // namespace flashmetric
