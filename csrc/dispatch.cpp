// SPDX-License-Identifier: BSD-3-Clause
// Hands problems, their names resolved, to the kernels of the device and ISA.
#include <algorithm>
#include <iterator>
#include <sstream>

#include "cpu/isa.h"
#include "cuda.h"
#include "list_rules.h"

namespace flashmetric {

Status mine(MineProblem& problem) {
  Names names;
  Status status = resolve(problem, names);
  if (status.empty()) cpu::kernel_table().mine(problem, names);
  return status;
}

Status cuda_mine(MineProblem& problem, Device device) {
  Names names;
  const Status status = resolve(problem, names);
  return status.empty() ? cuda::mine(problem, names, device) : status;
}

Status list_triplets(ListProblem& problem) {
  Names names;
  const Status status = resolve(problem, names);
  if (!status.empty()) return status;
  const bool usual = problem.mining == SemiHard::name && problem.hardness == 0.5;
  if (problem.for_loss && usual && cpu::semihard_is_dense(problem, names)) {
    problem.end = -1;
    return {};
  }
  cpu::kernel_table().list_triplets(problem, names);
  return {};
}

Status cuda_list_triplets(ListProblem& problem, Device device) {
  Names names;
  const Status status = resolve(problem, names);
  return status.empty() ? cuda::list_triplets(problem, names, device) : status;
}

Status cuda_listed_triplet(ListProblem& lists, TripletProblem& loss, Device device) {
  Names names;
  Status status = resolve(lists, names);
  if (status.empty()) status = resolve(loss, names);
  return status.empty() ? cuda::listed_triplet(lists, loss, names, device) : status;
}

Status dense(DenseProblem& problem) {
  Names names;
  const Status status = resolve(problem, names);
  if (!status.empty()) return status;
  if (problem.loss == SemiHard::name && !cpu::semihard_is_dense(problem, names)) {
    return "[dense] semihard takes float32 rows, large classes and a distance of products.";
  }
  cpu::kernel_table().dense(problem, names);
  return {};
}

Status cuda_dense(DenseProblem& problem, Device device) {
  Names names;
  const Status status = resolve(problem, names);
  return status.empty() ? cuda::dense(problem, names, device) : status;
}

Status paired(PairedProblem& problem) {
  Names names;
  Status status = resolve_distance("paired", problem.distance, names);
  if (status.empty()) cpu::kernel_table().paired(problem, names);
  return status;
}

Status cuda_paired(PairedProblem& problem, Device device) {
  Names names;
  const Status status = resolve_distance("paired", problem.distance, names);
  return status.empty() ? cuda::paired(problem, names, device) : status;
}

Status triplet(TripletProblem& problem) {
  Names names;
  Status status = resolve(problem, names);
  if (status.empty()) cpu::kernel_table().triplet(problem, names);
  return status;
}

Status cuda_triplet(TripletProblem& problem, Device device) {
  Names names;
  const Status status = resolve(problem, names);
  return status.empty() ? cuda::triplet(problem, names, device) : status;
}

Status mined_triplet(MineProblem& mined, TripletProblem& loss) {
  Names names;
  Status status = resolve(mined, names);
  if (status.empty()) status = resolve(loss, names);
  if (!status.empty()) return status;
  mined.workspace = loss.workspace;
  mined.threads = loss.threads;
  cpu::kernel_table().mine(mined, names);
  cpu::kernel_table().triplet(loss, names);
  loss.workspace.bytes = std::max(loss.workspace.bytes, mined.workspace.bytes);
  return {};
}

Status cuda_mined_triplet(MineProblem& mined, TripletProblem& loss, Device device) {
  Names names;
  Status status = resolve(mined, names);
  if (status.empty()) status = resolve(loss, names);
  return status.empty() ? cuda::mined_triplet(mined, loss, names, device) : status;
}

Status pairwise(PairwiseProblem& problem) {
  Names names;
  Status status = resolve_distance("pairwise", problem.distance, names);
  if (status.empty()) cpu::kernel_table().pairwise(problem, names);
  return status;
}

Status pairwise_backward(PairwiseProblem& problem) {
  Names names;
  Status status = resolve_distance("pairwise_backward", problem.distance, names);
  if (status.empty()) cpu::kernel_table().pairwise_backward(problem, names);
  return status;
}

Status cuda_pairwise(PairwiseProblem& problem, Device device) {
  Names names;
  const Status status = resolve_distance("pairwise", problem.distance, names);
  return status.empty() ? cuda::pairwise(problem, names, device) : status;
}

Status cuda_pairwise_backward(PairwiseProblem& problem, Device device) {
  Names names;
  const Status status = resolve_distance("pairwise_backward", problem.distance, names);
  return status.empty() ? cuda::pairwise_backward(problem, names, device) : status;
}

namespace {

struct NamedCounter {
  std::string_view name;
  int64_t cpu::Counters::* counter;
};
constexpr NamedCounter kCounters[] = {
    {"mine", &cpu::Counters::mine},
    {"list_triplets", &cpu::Counters::list_triplets},
    {"triplet", &cpu::Counters::triplet},
    {"dense", &cpu::Counters::dense},
    {"paired", &cpu::Counters::paired},
    {"pairwise", &cpu::Counters::pairwise},
    {"pairwise_backward", &cpu::Counters::pairwise_backward},
    {"candidates", &cpu::Counters::candidates},
    {"rescored", &cpu::Counters::rescored},
    {"fallback_rows", &cpu::Counters::fallback_rows},
    {"brute_rows", &cpu::Counters::brute_rows},
    {"slots", &cpu::Counters::slots},
    {"dense_blocks", &cpu::Counters::dense_blocks},
    {"sorted_anchors", &cpu::Counters::sorted_anchors},
};

struct NamedCudaCounter {
  std::string_view name;
  int64_t cuda::Counters::* counter;
};
constexpr NamedCudaCounter kCudaCounters[] = {
    {"cuda_mine", &cuda::Counters::mine},
    {"cuda_list_triplets", &cuda::Counters::list_triplets},
    {"cuda_triplet", &cuda::Counters::triplet},
    {"cuda_dense", &cuda::Counters::dense},
    {"cuda_paired", &cuda::Counters::paired},
    {"cuda_pairwise", &cuda::Counters::pairwise},
    {"cuda_pairwise_backward", &cuda::Counters::pairwise_backward},
    {"cuda_tiles", &cuda::Counters::tiles},
    {"cuda_keys", &cuda::Counters::keys},
};

}  // namespace

std::vector<std::pair<std::string_view, int64_t>> counters() {
  std::vector<std::pair<std::string_view, int64_t>> counts;
  for (const auto& [name, counter] : kCounters) {
    counts.emplace_back(name, __atomic_load_n(&(cpu::call_counters.*counter), __ATOMIC_RELAXED));
  }
  for (const auto& [name, counter] : kCudaCounters) {
    counts.emplace_back(name, __atomic_load_n(&(cuda::call_counters.*counter), __ATOMIC_RELAXED));
  }
  return counts;
}

void reset_counters() {
  for (const auto& [name, counter] : kCounters) {
    __atomic_store_n(&(cpu::call_counters.*counter), int64_t{0}, __ATOMIC_RELAXED);
  }
  for (const auto& [name, counter] : kCudaCounters) {
    __atomic_store_n(&(cuda::call_counters.*counter), int64_t{0}, __ATOMIC_RELAXED);
  }
}

namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

}  // namespace

std::map<std::string, BuildFact> build_info() {
#if defined(FLASHMETRIC_OPENMP)
  constexpr bool openmp = true;
#else
  constexpr bool openmp = false;
#endif
  return {{"version", FLASHMETRIC_VERSION},
          {"compiler", FLASHMETRIC_COMPILER},
          {"cxx_flags", FLASHMETRIC_CXX_FLAGS},
          {"openmp", openmp},
          {"cuda", built_with_cuda()},
          {"cuda_toolkit", FLASHMETRIC_CUDA_TOOLKIT},
          {"cuda_archs", words(FLASHMETRIC_CUDA_CODE)}};
}

}  // namespace flashmetric
