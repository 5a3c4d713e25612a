// SPDX-License-Identifier: BSD-3-Clause
// From the arguments of a Python call to a problem of flashmetric.h, and back to Python. Only
// bindings.cpp includes this.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string_view>
#include <type_traits>

#include "cuda.h"

namespace flashmetric::bindings {

namespace py = pybind11;
namespace fm = flashmetric;

// Hands out the arguments of a call in order; each is converted to what it is assigned to.
// Address 0 is a null pointer.
class Arguments {
 public:
  explicit Arguments(const py::args& args) : args_(args) {}

  template <class T>
  operator T() {  // NOLINT: the conversion is the point
    const py::handle next = args_[at_++];
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(next.cast<uintptr_t>());
    } else if constexpr (std::is_enum_v<T>) {
      return static_cast<T>(next.cast<int>());
    } else {
      return next.cast<T>();
    }
  }
  bool done() const { return at_ == args_.size(); }

 private:
  const py::args& args_;
  size_t at_ = 0;
};

// What the machine refuses is no fault of a value.
inline void raise(const fm::Status& status) {
  if (status.find("] CUDA error in ") != std::string::npos) throw std::runtime_error(status);
  if (!status.empty()) throw py::value_error(status);
}

// Runs the operation on the last arguments, workspace, its size, threads. Returns 0, or, if the
// workspace is too small, only the bytes it needs.
template <class Operation, class Problem>
size_t run(const Operation& operation, Problem& problem, Arguments& in) {
  fm::Workspace workspace;
  workspace.data = in;
  workspace.bytes = in;
  problem.threads = in;
  if (!in.done()) throw py::type_error("too many arguments");
  fm::Status status;
  size_t needed = 0;
  {
    py::gil_scoped_release released;
    status = operation(problem);  // without a workspace: measures
    needed = problem.workspace.bytes;
    if (status.empty() && needed <= workspace.bytes) {
      problem.workspace = workspace;
      status = operation(problem);
      needed = 0;
    }
  }
  raise(status);
  return needed;
}

inline fm::Relation relation_named(std::string_view name) {
  const int relation = fm::relation_named(name);
  if (relation < 0) throw py::value_error("unknown relation '" + std::string(name) + "'.");
  return static_cast<fm::Relation>(relation);
}

template <class Problem>
inline void read_metric(Problem& problem, Arguments& in) {
  problem.distance = in;
  problem.normalize = in;
  const int dtype = in;
  if (dtype < 0 || dtype > 3) throw py::value_error("dtype must be one of DType.");
  problem.dtype = static_cast<fm::DType>(dtype);
  problem.dim = in;
}

inline fm::Device read_device(Arguments& in) {
  fm::Device device;
  device.index = in;
  device.stream = in;
  return device;
}

inline fm::Rows read_rows(Arguments& in) {
  fm::Rows rows;
  rows.data = in;
  rows.n = in;
  rows.stride = in;
  return rows;
}

inline void read_comparison(fm::Comparison& problem, Arguments& in) {
  read_metric(problem, in);
  problem.query = read_rows(in);
  problem.ref = read_rows(in);
  problem.symmetric = problem.ref.data == nullptr;
  if (problem.symmetric) problem.ref = problem.query;
  problem.labels.relation = relation_named(in);
  problem.labels.query = in;
  problem.labels.ref = in;
  problem.labels.n_classes = in;
  problem.labels.self_index = in;
  problem.labels.query_keep = in;
  problem.labels.ref_keep = in;
}

inline fm::MineProblem read_mine(Arguments& in) {
  fm::MineProblem p;
  p.mining = in;
  read_comparison(p, in);
  p.positive = in;
  p.negative = in;
  return p;
}

inline fm::ListProblem read_list(Arguments& in) {
  fm::ListProblem p;
  p.mining = in;
  read_comparison(p, in);
  p.drop_without_semihard = in;
  p.hardness = in;
  p.positive_mining = in;
  p.negative_mining = in;
  p.n_negatives = in;
  p.mining_margin = in;
  p.margin_values = in;
  p.margin_stride = in;
  p.seed = static_cast<uint64_t>(static_cast<int64_t>(in));
  p.uncovered = in;
  p.for_loss = in;
  p.begin = in;
  p.capacity = in;
  for (int64_t*& out : p.out) out = in;
  return p;
}

inline fm::ListProblem read_cuda_list(Arguments& in) {
  fm::ListProblem p = read_list(in);
  p.hardness_value = in;
  p.total = in;
  return p;
}

inline fm::TripletProblem read_triplet(Arguments& in) {
  fm::TripletProblem p;
  read_metric(p, in);
  for (int role = 0; role < 3; ++role) {  // a role without rows shares those of the one before
    p.rows[role] = read_rows(in);
    const bool shared = p.rows[role].data == nullptr;
    p.first_role[role] = shared ? p.first_role[role - 1] : role;
    if (shared) p.rows[role] = p.rows[role - 1];
  }
  p.n = in;
  for (const int64_t*& index : p.index) index = in;
  p.margin = in;
  p.margin_values = in;
  p.margin_stride = in;
  p.soft_margin = in;
  p.swap = in;
  p.weights = in;
  p.count_invalid = in;
  p.far_from_none = in;
  p.reduction = in;
  p.cotangent = in;
  p.cotangent_stride = in;
  p.loss = in;
  for (void*& grad : p.grad) grad = in;
  p.stats = in;
  p.totals = in;
  return p;
}

inline fm::DenseProblem read_dense(Arguments& in) {
  fm::DenseProblem p;
  p.loss = in;
  read_comparison(p, in);
  p.margin = in;
  p.margin_values = in;
  p.margin_stride = in;
  p.mining_margin = in;
  p.mining_margin_values = in;
  p.mining_margin_stride = in;
  p.soft_margin = in;
  p.drop_without_semihard = in;
  p.uncovered = in;
  p.refused = in;
  p.temperature = in;
  p.detach_weights = in;
  p.power = in;
  p.factor = in;
  p.bounds = in;
  p.weights = in;
  p.reduction = in;
  p.cotangent = in;
  p.cotangent_stride = in;
  p.out = in;
  for (void*& grad : p.grad) grad = in;
  p.stats = in;
  return p;
}

inline fm::PairedProblem read_paired(Arguments& in) {
  fm::PairedProblem p;
  read_metric(p, in);
  p.x = read_rows(in);
  p.r = read_rows(in);
  p.shared = p.r.data == nullptr;
  if (p.shared) p.r = p.x;
  p.n = in;
  for (const int64_t*& index : p.index) index = in;
  p.cotangent = in;
  p.cotangent_stride = in;
  p.out = in;
  for (void*& grad : p.grad) grad = in;
  return p;
}

template <bool backward>
fm::PairwiseProblem read_pairwise(Arguments& in) {
  fm::PairwiseProblem p;
  read_metric(p, in);
  p.x = read_rows(in);
  p.y = read_rows(in);
  if (backward) {
    p.swapped = in;
    p.mirrored = in;
    p.cotangent = in;
    p.cotangent_row_stride = in;
    p.cotangent_col_stride = in;
  }
  p.out = in;
  return p;
}

}  // namespace flashmetric::bindings
