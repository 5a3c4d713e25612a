// SPDX-License-Identifier: BSD-3-Clause
// Turns names into positions in the policy lists and hands the problem to the kernels of the device
// and ISA. No template leaves this file.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <sstream>

#include "cpu/isa.h"
#include "cuda.h"
#include "distances.h"
#include "list_rules.h"
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

// A name, or that of Minkowski with its exponent: "minkowski(3.5)".
Status resolve_distance(const char* op, std::string_view name, Names& names) {
  std::string_view kind = name;
  const size_t open = name.find('(');
  if (open != std::string_view::npos && name.back() == ')') {
    const char* const begin = name.data() + open + 1;
    const char* const end = name.data() + name.size() - 1;
    const auto parsed = std::from_chars(begin, end, names.power);
    const bool whole = parsed.ec == std::errc() && parsed.ptr == end && names.power > 1;
    if (whole && name.substr(0, open) == Minkowski::name) kind = Minkowski::name;
  }
  return resolve(Distances{}, op, "distance", kind, names.distance);
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
constexpr std::string_view kRelations[] = {"classes", "either", "multi_hot", "mask"};

// In the order of Reduction.
constexpr std::string_view kReductions[] = {"mean", "mean_active", "sum", "none"};

// In the order of DenseReduction.
constexpr std::string_view kDenseReductions[] = {"mean", "mean_active", "mean_pairs", "sum",
                                                 "none"};

// The rules of cpu/dense_kernels.cpp.
constexpr std::string_view kDenseLosses[] = {
    "all",  "semihard_all", "hard_all",           "easy_all",
    "soft", "contrastive",  "online_contrastive", SemiHard::name};

Status resolve(const MineProblem& problem, Names& names) {
  Status status = resolve_distance("mine", problem.distance, names);
  if (status.empty()) status = resolve(Miners{}, "mine", "mining", problem.mining, names.mining);
  if (status.empty()) status = check_size("mine", problem.query.n);
  if (status.empty()) status = check_size("mine", problem.ref.n);
  return status;
}

Status resolve(const TripletProblem& problem, Names& names) {
  Status status = resolve_distance("triplet", problem.distance, names);
  if (!status.empty()) return status;
  const auto* const reduction =
      std::find(std::begin(kReductions), std::end(kReductions), problem.reduction);
  if (reduction == std::end(kReductions)) {
    return "[triplet] unknown reduction '" + std::string(problem.reduction) +
           "'; known: mean, mean_active, sum, none.";
  }
  names.reduction = static_cast<Reduction>(reduction - std::begin(kReductions));
  names.loss = index_of_name(TripletLosses{}, problem.soft_margin ? "soft_margin" : "hinge");
  return {};
}

}  // namespace

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
  const char* const op = "mine_triplets";
  Names names;
  Status status = resolve_distance(op, problem.distance, names);
  if (status.empty()) status = resolve(ListRules{}, op, "mining", problem.mining, names.mining);
  if (status.empty()) status = check_size(op, problem.ref.n);
  if (!status.empty()) return status;
  const bool usual = problem.mining == SemiHard::name && problem.hardness == 0.5;
  if (problem.for_loss && usual && cpu::semihard_is_dense(problem, names)) {
    problem.end = -1;
    return {};
  }
  cpu::kernel_table().list_triplets(problem, names);
  return {};
}

Status dense(DenseProblem& problem) {
  Names names;
  Status status = resolve_distance("dense", problem.distance, names);
  if (status.empty()) status = check_size("dense", problem.query.n);
  if (status.empty()) status = check_size("dense", problem.ref.n);
  if (!status.empty()) return status;
  const auto* const known =
      std::find(std::begin(kDenseLosses), std::end(kDenseLosses), problem.loss);
  const auto* const reduction =
      std::find(std::begin(kDenseReductions), std::end(kDenseReductions), problem.reduction);
  if (known == std::end(kDenseLosses) || reduction == std::end(kDenseReductions)) {
    return "[dense] unknown loss or reduction: '" + std::string(problem.loss) + "', '" +
           std::string(problem.reduction) + "'.";
  }
  if (problem.loss == SemiHard::name && !cpu::semihard_is_dense(problem, names)) {
    return "[dense] semihard takes float32 rows, large classes and a distance of products.";
  }
  names.dense_reduction = static_cast<DenseReduction>(reduction - std::begin(kDenseReductions));
  cpu::kernel_table().dense(problem, names);
  return {};
}

Status paired(PairedProblem& problem) {
  Names names;
  Status status = resolve_distance("paired", problem.distance, names);
  if (status.empty()) cpu::kernel_table().paired(problem, names);
  return status;
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

int relation_named(std::string_view name) {
  const auto* const found = std::find(std::begin(kRelations), std::end(kRelations), name);
  return found == std::end(kRelations) ? -1 : static_cast<int>(found - std::begin(kRelations));
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
    {"cuda_triplet", &cuda::Counters::triplet},
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
