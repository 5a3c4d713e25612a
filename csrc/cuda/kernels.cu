// SPDX-License-Identifier: BSD-3-Clause
// The entry points of cuda.h: lays out the workspace, clears what must be zero, launches.
#include "stages.h"

namespace flashmetric {

bool built_with_cuda() { return true; }

namespace cuda {

namespace {

cudaStream_t stream_of(const Device& device) { return static_cast<cudaStream_t>(device.stream); }

void count(int64_t& counter) { __atomic_fetch_add(&counter, int64_t{1}, __ATOMIC_RELAXED); }

// Where the arrays that start as zero lie.
struct Zeros {
  void* begin;
  size_t bytes;
  void clear(cudaStream_t stream, Launches& launches) const {
    launches.note(cudaMemsetAsync(begin, 0, bytes, stream), "cudaMemsetAsync");
  }
};

}  // namespace

Counters call_counters{};

Status mine(MineProblem& problem, Names names, Device device) {
  const DeviceFacts& facts = facts_of(device.index);
  MineState state = mine_state(problem, names, facts);
  Arena arena(problem.workspace);
  const size_t start = arena.bytes();
  lay_out_zeros(arena, problem, state);
  const Zeros zeros{state.tally, arena.bytes() - start};
  lay_out_rest(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return {};
  }
  if (problem.query.n == 0) return {};
  Launches launches("mine");
  const DeviceGuard guard(device.index);
  launches.note(guard.error(), "cudaSetDevice");
  zeros.clear(stream_of(device), launches);
  const Path path = path_of(facts.major, facts.minor);
  launch_mining(state, path, facts.multiprocessors, stream_of(device), launches);
  const Chosen chosen{{problem.positive, problem.negative}, {nullptr, nullptr}};
  launch_choices(state, chosen, stream_of(device), launches);
  count(call_counters.mine);
  return launches.status();
}

Status triplet(TripletProblem& problem, Names names, Device device) {
  // What touches a row is a number of 32 bits: triplet, pair and side.
  constexpr int64_t most = UINT32_MAX / (2 * kPairs) - 1;
  if (problem.n > most) {
    return "[triplet] at most " + std::to_string(most) + " triplets are supported; got " +
           std::to_string(problem.n) + ".";
  }
  TripletState state = triplet_state(problem, names);
  Arena arena(problem.workspace);
  const size_t start = arena.bytes();
  lay_out_zeros(arena, problem, state);
  const Zeros zeros{state.tally, arena.bytes() - start};
  lay_out_rest(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return {};
  }
  Launches launches("triplet");
  const DeviceGuard guard(device.index);
  launches.note(guard.error(), "cudaSetDevice");
  zeros.clear(stream_of(device), launches);
  launch_norms(state, stream_of(device), launches);
  launch_triplets(state, false, stream_of(device), launches);
  count(call_counters.triplet);
  return launches.status();
}

Status mined_triplet(MineProblem& mined, TripletProblem& loss, Names names, Device device) {
  const DeviceFacts& facts = facts_of(device.index);
  MineState mine = mine_state(mined, names, facts);
  TripletState state = triplet_state(loss, names);
  Arena arena(loss.workspace);
  const size_t start = arena.bytes();
  lay_out_zeros(arena, mined, mine);
  const Zeros zeros{mine.tally, 0};
  state.tally = mine.tally;
  lay_out_zeros(arena, loss, state);
  const size_t zero_bytes = arena.bytes() - start;
  lay_out_rest(arena, mined, mine);
  state.index[1] = mined.positive;
  state.index[2] = mined.negative;
  state.rows[0].numbers = mine.query.numbers;
  state.rows[1].numbers = mine.ref.numbers;
  lay_out_rest(arena, loss, state);
  if (arena.counting()) {
    loss.workspace.bytes = arena.bytes();
    return {};
  }
  Launches launches("mined_triplet");
  const DeviceGuard guard(device.index);
  launches.note(guard.error(), "cudaSetDevice");
  Zeros{zeros.begin, zero_bytes}.clear(stream_of(device), launches);
  if (mined.query.n > 0) {
    const Path path = path_of(facts.major, facts.minor);
    launch_mining(mine, path, facts.multiprocessors, stream_of(device), launches);
    const Chosen chosen{{mined.positive, mined.negative}, {state.keys[kAP], state.keys[kAN]}};
    launch_choices(mine, chosen, stream_of(device), launches);
  }
  const bool known = keeps_keys(state.key, loss.dtype);
  launch_triplets(state, known, stream_of(device), launches);
  count(call_counters.mine);
  count(call_counters.triplet);
  return launches.status();
}

}  // namespace cuda
}  // namespace flashmetric
