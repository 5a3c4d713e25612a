// SPDX-License-Identifier: BSD-3-Clause
// Turns the names of a problem into positions in the policy lists.
#include "names.h"

#include <algorithm>
#include <charconv>
#include <iterator>

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

// In the order of Relation.
constexpr std::string_view kRelations[] = {"classes", "either", "multi_hot", "mask"};

// In the order of Reduction.
constexpr std::string_view kReductions[] = {"mean", "mean_active", "sum", "none"};

// In the order of DenseReduction.
constexpr std::string_view kDenseReductions[] = {"mean", "mean_active", "mean_pairs", "sum",
                                                 "none"};

// The rules of cpu/dense_kernels.cpp and of cuda/dense_rules.cu.
constexpr std::string_view kDenseLosses[] = {
    "all",  "semihard_all", "hard_all",           "easy_all",
    "soft", "contrastive",  "online_contrastive", SemiHard::name};

}  // namespace

int relation_named(std::string_view name) {
  const auto* const found = std::find(std::begin(kRelations), std::end(kRelations), name);
  return found == std::end(kRelations) ? -1 : static_cast<int>(found - std::begin(kRelations));
}

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

Status check_size(const char* op, int64_t rows) {
  if (rows < INT32_MAX - 1024) return {};
  Status status = "[";
  return status.append(op)
      .append("] at most 2^31 - 1025 rows are supported; got ")
      .append(std::to_string(rows))
      .append(".");
}

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

Status resolve(const DenseProblem& problem, Names& names) {
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
  names.dense_reduction = static_cast<DenseReduction>(reduction - std::begin(kDenseReductions));
  return {};
}

Status resolve(const PairedProblem& problem, Names& names) {
  return resolve_distance("paired", problem.distance, names);
}

Status resolve(const PairwiseProblem& problem, Names& names) {
  return resolve_distance("pairwise", problem.distance, names);
}

Status resolve(const ListProblem& problem, Names& names) {
  const char* const op = "mine_triplets";
  Status status = resolve_distance(op, problem.distance, names);
  if (status.empty()) status = resolve(ListRules{}, op, "mining", problem.mining, names.mining);
  return status.empty() ? check_size(op, problem.ref.n) : status;
}

}  // namespace flashmetric
