// SPDX-License-Identifier: BSD-3-Clause
// The only file that knows Python: one table of m.def. Tensors come as they are (None = absent), the
// GIL is released while kernels run, and a non-empty status becomes a ValueError.
#include "arguments.h"
#include "cpu/isa.h"
#include "flashmetric.h"
#include "test_hooks.h"

namespace py = pybind11;
namespace fm = flashmetric;

namespace {

using fm::bindings::Arguments;
using fm::bindings::raise;
using fm::bindings::read_comparison;
using fm::bindings::read_cuda_list;
using fm::bindings::read_dense;
using fm::bindings::read_device;
using fm::bindings::read_list;
using fm::bindings::read_mine;
using fm::bindings::read_paired;
using fm::bindings::read_pairwise;
using fm::bindings::read_terms_of;
using fm::bindings::read_triplet;
using fm::bindings::run;

size_t mine(const py::args& args) {
  Arguments in(args);
  fm::MineProblem p = read_mine(in);
  return run(fm::mine, p, in);
}

// Also writes found[3]: the triplets listed, the first anchor not listed, the capacity it needs.
size_t list_triplets(const py::args& args) {
  Arguments in(args);
  fm::ListProblem p = read_list(in);
  int64_t* found = in;
  const size_t needed = run(fm::list_triplets, p, in);
  found[0] = p.count;
  found[1] = p.end;
  found[2] = p.needed;
  return needed;
}

size_t triplet(const py::args& args) {
  Arguments in(args);
  fm::TripletProblem p = read_triplet(in);
  return run(fm::triplet, p, in);
}

size_t mined_triplet(const py::args& args) {
  Arguments in(args);
  fm::MineProblem mined = read_mine(in);
  fm::TripletProblem p = read_terms_of(mined, in);
  return run([&](fm::TripletProblem& loss) { return fm::mined_triplet(mined, loss); }, p, in);
}

size_t dense(const py::args& args) {
  Arguments in(args);
  fm::DenseProblem p = read_dense(in);
  return run(fm::dense, p, in);
}

size_t paired(const py::args& args) {
  Arguments in(args);
  fm::PairedProblem p = read_paired(in);
  return run(fm::paired, p, in);
}

template <bool backward>
size_t pairwise(const py::args& args) {
  Arguments in(args);
  fm::PairwiseProblem p = read_pairwise<backward>(in);
  return run(backward ? fm::pairwise_backward : fm::pairwise, p, in);
}

// Reads a problem and runs it on a GPU.
template <auto read, auto operation>
size_t on_gpu(const py::args& args) {
  Arguments in(args);
  const fm::Device device = read_device(in);
  auto p = read(in);
  return run([=](auto& problem) { return operation(problem, device); }, p, in);
}

// Reads what chooses triplets, and their loss.
template <auto read, auto operation>
size_t loss_on_gpu(const py::args& args) {
  Arguments in(args);
  const fm::Device device = read_device(in);
  auto chosen = read(in);
  fm::TripletProblem p = read_terms_of(chosen, in);
  return run([&](fm::TripletProblem& loss) { return operation(chosen, loss, device); }, p, in);
}

void pair_products(py::handle rows, py::handle out) {
  const fm::bindings::TensorView from = fm::bindings::view_of(rows);
  auto* const to = static_cast<float*>(fm::bindings::view_of(out).data);
  raise(fm::pair_products(static_cast<const float*>(from.data), from.shape[0], from.shape[1], to));
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "FlashMetric's kernels. Private: use the functions of flashmetric.";
  m.def("mine", &mine);
  m.def("list_triplets", &list_triplets);
  m.def("triplet", &triplet);
  m.def("mined_triplet", &mined_triplet);
  m.def("dense", &dense);
  m.def("paired", &paired);
  m.def("pairwise", &pairwise<false>);
  m.def("pairwise_backward", &pairwise<true>);
  m.def("cuda_mine", &on_gpu<read_mine, fm::cuda_mine>);
  m.def("cuda_list_triplets", &on_gpu<read_cuda_list, fm::cuda_list_triplets>);
  m.def("cuda_listed_triplet", &loss_on_gpu<read_cuda_list, fm::cuda_listed_triplet>);
  m.def("cuda_triplet", &on_gpu<read_triplet, fm::cuda_triplet>);
  m.def("cuda_mined_triplet", &loss_on_gpu<read_mine, fm::cuda_mined_triplet>);
  m.def("cuda_dense", &on_gpu<read_dense, fm::cuda_dense>);
  m.def("cuda_paired", &on_gpu<read_paired, fm::cuda_paired>);
  m.def("cuda_pairwise", &on_gpu<read_pairwise<false>, fm::cuda_pairwise>);
  m.def("cuda_pairwise_backward", &on_gpu<read_pairwise<true>, fm::cuda_pairwise_backward>);
  m.def("cuda_path", [](int major, int minor) {
    std::string name;
    raise(fm::cuda::path(major, minor, name));
    return name;
  });
  m.def("counters", [] {
    py::dict named;
    for (const auto& [name, count] : fm::counters()) named[py::str(name)] = count;
    return named;
  });
  m.def("reset_counters", &fm::reset_counters);
  m.def("set_slack_factor", &fm::set_slack_factor);
  m.def("rank_narrow_always", &fm::rank_narrow_always);
  m.def("pair_products", &pair_products);
  m.def("look_at_attributes", [](bool only) { fm::bindings::attributes_only = only; });
  m.def("isa", &fm::isa_in_use);
  m.def("isa_is_forced", &fm::isa_is_forced);
  m.def("isas", &fm::compiled_isas);
  m.def("force_isa", [](std::string_view name) { raise(fm::force_isa(name)); });
  m.def("environment_error", &fm::cpu::environment_error);
  m.def("build_info", &fm::build_info);
}
