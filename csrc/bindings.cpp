// SPDX-License-Identifier: BSD-3-Clause
// The only file that knows Python: one table of m.def. Pointers cross as integers (0 = absent), the
// GIL is released while kernels run, and a non-empty status becomes a ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "cpu/isa.h"
#include "flashmetric.h"

namespace py = pybind11;
namespace fm = flashmetric;

namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

fm::Rows rows(Address data, int64_t n, int64_t stride) { return {pointer<void>(data), n, stride}; }

void raise(const fm::Status& status) {
  if (!status.empty()) throw py::value_error(status);
}

// Runs the operation and returns 0, or, if the workspace is too small, only the bytes it needs.
template <class Problem>
size_t run(fm::Status (*operation)(Problem&), Problem& problem, fm::Workspace workspace) {
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

fm::Relation relation_named(std::string_view name) {
  const int relation = fm::relation_named(name);
  if (relation < 0)
    throw py::value_error("[mine] unknown relation; known: classes, multi_hot, mask.");
  return static_cast<fm::Relation>(relation);
}

template <class Problem>
void set_rows_kind(Problem& problem, std::string_view distance, bool normalize, int dtype,
                   int64_t dim) {
  problem.distance = distance;
  problem.normalize = normalize;
  if (dtype != 0 && dtype != 1) throw py::value_error("dtype must be 0 (float32) or 1 (float64).");
  problem.dtype = static_cast<fm::DType>(dtype);
  problem.dim = dim;
}

size_t mine(std::string_view mining, std::string_view distance, bool normalize, int dtype,
            int64_t dim, Address query, int64_t n_query, int64_t query_stride, Address ref,
            int64_t n_ref, int64_t ref_stride, std::string_view relation, Address query_labels,
            Address ref_labels, int64_t n_classes, Address self_index, Address query_keep,
            Address ref_keep, Address positive, Address negative, Address workspace,
            size_t workspace_size, int threads) {
  fm::MineProblem p;
  p.mining = mining;
  set_rows_kind(p, distance, normalize, dtype, dim);
  p.query = rows(query, n_query, query_stride);
  p.symmetric = ref == 0;
  p.ref = p.symmetric ? p.query : rows(ref, n_ref, ref_stride);
  p.labels = {relation_named(relation),     pointer<void>(query_labels),
              pointer<void>(ref_labels),    n_classes,
              pointer<int64_t>(self_index), pointer<uint8_t>(query_keep),
              pointer<uint8_t>(ref_keep)};
  p.positive = pointer<int64_t>(positive);
  p.negative = pointer<int64_t>(negative);
  p.threads = threads;
  return run(fm::mine, p, {pointer<void>(workspace), workspace_size});
}

// The rows of a role; without any it shares those of the role before.
void set_role(fm::TripletProblem& problem, int role, fm::Rows rows) {
  const bool shared = rows.data == nullptr;
  problem.first_role[role] = shared ? problem.first_role[role - 1] : role;
  problem.rows[role] = shared ? problem.rows[role - 1] : rows;
}

size_t triplet(std::string_view distance, bool normalize, int dtype, int64_t dim,
               Address anchor_rows, int64_t n_anchor_rows, int64_t anchor_stride,
               Address positive_rows, int64_t n_positive_rows, int64_t positive_stride,
               Address negative_rows, int64_t n_negative_rows, int64_t negative_stride, int64_t n,
               Address anchor, Address positive, Address negative, double margin,
               Address margin_values, int64_t margin_stride, bool soft_margin, bool swap,
               Address weights, bool count_invalid, std::string_view reduction, Address cotangent,
               int64_t cotangent_stride, Address loss, Address grad_anchor, Address grad_positive,
               Address grad_negative, Address stats, Address workspace, size_t workspace_size,
               int threads) {
  fm::TripletProblem p;
  p.reduction = reduction;
  set_rows_kind(p, distance, normalize, dtype, dim);
  p.rows[0] = rows(anchor_rows, n_anchor_rows, anchor_stride);
  set_role(p, 1, rows(positive_rows, n_positive_rows, positive_stride));
  set_role(p, 2, rows(negative_rows, n_negative_rows, negative_stride));
  p.n = n;
  p.index[0] = pointer<int64_t>(anchor);
  p.index[1] = pointer<int64_t>(positive);
  p.index[2] = pointer<int64_t>(negative);
  p.margin = margin;
  p.margin_values = pointer<double>(margin_values);
  p.margin_stride = margin_stride;
  p.soft_margin = soft_margin;
  p.swap = swap;
  p.weights = pointer<double>(weights);
  p.count_invalid = count_invalid;
  p.cotangent = pointer<void>(cotangent);
  p.cotangent_stride = cotangent_stride;
  p.loss = pointer<void>(loss);
  p.grad[0] = pointer<void>(grad_anchor);
  p.grad[1] = pointer<void>(grad_positive);
  p.grad[2] = pointer<void>(grad_negative);
  p.stats = pointer<double>(stats);
  p.threads = threads;
  return run(fm::triplet, p, {pointer<void>(workspace), workspace_size});
}

size_t pairwise_backward(std::string_view distance, bool normalize, int dtype, int64_t dim,
                         Address x, int64_t n_x, int64_t x_stride, Address y, int64_t n_y,
                         int64_t y_stride, Address cotangent, int64_t row_stride,
                         int64_t col_stride, Address out, Address workspace, size_t workspace_size,
                         int threads) {
  fm::PairwiseProblem p;
  set_rows_kind(p, distance, normalize, dtype, dim);
  p.x = rows(x, n_x, x_stride);
  p.y = rows(y, n_y, y_stride);
  p.cotangent = pointer<void>(cotangent);
  p.cotangent_row_stride = row_stride;
  p.cotangent_col_stride = col_stride;
  p.out = pointer<void>(out);
  p.threads = threads;
  return run(cotangent == 0 ? fm::pairwise : fm::pairwise_backward, p,
             {pointer<void>(workspace), workspace_size});
}

size_t pairwise(std::string_view distance, bool normalize, int dtype, int64_t dim, Address x,
                int64_t n_x, int64_t x_stride, Address y, int64_t n_y, int64_t y_stride,
                Address out, Address workspace, size_t workspace_size, int threads) {
  return pairwise_backward(distance, normalize, dtype, dim, x, n_x, x_stride, y, n_y, y_stride, 0,
                           0, 0, out, workspace, workspace_size, threads);
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "FlashMetric's kernels. Private: use the functions of flashmetric.";
  m.def("mine", &mine);
  m.def("triplet", &triplet);
  m.def("pairwise", &pairwise);
  m.def("pairwise_backward", &pairwise_backward);
  m.def("counters", [] {
    py::dict named;
    for (const auto& [name, count] : fm::counters()) named[py::str(name)] = count;
    return named;
  });
  m.def("reset_counters", &fm::reset_counters);
  m.def("isa", &fm::isa_in_use);
  m.def("isa_is_forced", &fm::isa_is_forced);
  m.def("isas", &fm::compiled_isas);
  m.def("force_isa", [](std::string_view name) { raise(fm::force_isa(name)); });
  m.def("environment_error", &fm::cpu::environment_error);
  m.def("build_info", &fm::build_info);
}
