// SPDX-License-Identifier: BSD-3-Clause
// Turns names into positions in the policy lists and hands the problem to the kernels of the device
// and ISA. No template leaves this file.
#include <algorithm>
#include <iterator>

#include "cpu/isa.h"
#include "distances.h"
#include "losses.h"
#include "mining.h"

namespace flashmetric {
namespace {

template <class List>
Status resolve(List list, const char* op, const char* argument, std::string_view name, int& index) {
  index = index_of_name(list, name);
  if (index >= 0) return {};
  Status status = "[";
  return status.append(op)
      .append("] unknown ")
      .append(argument)
      .append(" '")
      .append(name)
      .append("'; known: ")
      .append(names_of(list))
      .append(".");
}

// Sorted positions are int32: 16 bytes of state a row already make 2^31 rows a matter of terabytes.
Status check_size(const char* op, int64_t rows) {
  if (rows < INT32_MAX - 1024) return {};
  Status status = "[";
  return status.append(op)
      .append("] at most 2^31 - 1025 rows are supported; got ")
      .append(std::to_string(rows))
      .append(".");
}

// In the order of Relation.
constexpr std::string_view kRelations[] = {"classes", "multi_hot", "mask"};

// In the order of cpu::Reduction.
constexpr std::string_view kReductions[] = {"mean", "mean_active", "sum", "none"};

}  // namespace

Status mine(MineProblem& problem) {
  cpu::Names names;
  Status status = resolve(Distances{}, "mine", "distance", problem.distance, names.distance);
  if (status.empty()) status = resolve(Miners{}, "mine", "mining", problem.mining, names.mining);
  if (status.empty()) status = check_size("mine", problem.query.n);
  if (status.empty()) status = check_size("mine", problem.ref.n);
  if (status.empty()) cpu::kernel_table().mine(problem, names);
  return status;
}

Status triplet(TripletProblem& problem) {
  cpu::Names names;
  Status status = resolve(Distances{}, "triplet", "distance", problem.distance, names.distance);
  if (!status.empty()) return status;
  const auto* const reduction =
      std::find(std::begin(kReductions), std::end(kReductions), problem.reduction);
  if (reduction == std::end(kReductions)) {
    return "[triplet] unknown reduction '" + std::string(problem.reduction) +
           "'; known: mean, mean_active, sum, none.";
  }
  names.reduction = static_cast<cpu::Reduction>(reduction - std::begin(kReductions));
  names.loss = index_of_name(TripletLosses{}, problem.soft_margin ? "soft_margin" : "hinge");
  cpu::kernel_table().triplet(problem, names);
  return {};
}

Status pairwise(PairwiseProblem& problem) {
  cpu::Names names;
  Status status = resolve(Distances{}, "pairwise", "distance", problem.distance, names.distance);
  if (status.empty()) cpu::kernel_table().pairwise(problem, names);
  return status;
}

Status pairwise_backward(PairwiseProblem& problem) {
  cpu::Names names;
  Status status =
      resolve(Distances{}, "pairwise_backward", "distance", problem.distance, names.distance);
  if (status.empty()) cpu::kernel_table().pairwise_backward(problem, names);
  return status;
}

int relation_named(std::string_view name) {
  const auto* const found = std::find(std::begin(kRelations), std::end(kRelations), name);
  return found == std::end(kRelations) ? -1 : static_cast<int>(found - std::begin(kRelations));
}

std::vector<std::pair<std::string_view, int64_t>> counters() {
  const auto read = [](int64_t& counter) { return __atomic_load_n(&counter, __ATOMIC_RELAXED); };
  cpu::Counters& live = cpu::call_counters;
  return {{"mine", read(live.mine)},         {"triplet", read(live.triplet)},
          {"pairwise", read(live.pairwise)}, {"pairwise_backward", read(live.pairwise_backward)},
          {"rescored", read(live.rescored)}, {"brute_rows", read(live.brute_rows)}};
}

void reset_counters() {
  cpu::Counters& live = cpu::call_counters;
  for (int64_t* counter : {&live.mine, &live.triplet, &live.pairwise, &live.pairwise_backward,
                           &live.rescored, &live.brute_rows}) {
    __atomic_store_n(counter, int64_t{0}, __ATOMIC_RELAXED);
  }
}

std::map<std::string, BuildFact> build_info() {
#if defined(FLASHMETRIC_OPENMP)
  constexpr bool openmp = true;
#else
  constexpr bool openmp = false;
#endif
  return {{"version", FLASHMETRIC_VERSION},     {"compiler", FLASHMETRIC_COMPILER},
          {"cxx_flags", FLASHMETRIC_CXX_FLAGS}, {"openmp", openmp},
          {"cuda", built_with_cuda()},          {"cuda_archs", std::vector<std::string>()}};
}

}  // namespace flashmetric
