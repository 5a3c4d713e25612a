// SPDX-License-Identifier: BSD-3-Clause
// What Python sees: one table of m.def. Tensors come as they are (None = absent), the GIL is
// released while kernels run, and a non-empty status becomes a ValueError.
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
using fm::bindings::read_list;
using fm::bindings::read_listed_triplet;
using fm::bindings::read_mine;
using fm::bindings::read_mined_triplet;
using fm::bindings::read_paired;
using fm::bindings::read_pairwise;
using fm::bindings::read_triplet;
using fm::bindings::run;

// Reads a problem and runs it on the CPU.
template <auto read, auto operation>
size_t on_cpu(const py::tuple& args, py::handle workspace, int threads) {
  Arguments in(args);
  auto p = read(in);
  p.threads = threads;
  return run(operation, p, in, workspace);
}

// Also writes found[3]: the triplets listed, the first anchor not listed, the capacity it needs.
size_t list_triplets(const py::tuple& args, py::handle workspace, int threads) {
  Arguments in(args);
  fm::ListProblem p = read_list(in);
  p.threads = threads;
  int64_t* found = in;
  const size_t needed = run(fm::list_triplets, p, in, workspace);
  found[0] = p.count;
  found[1] = p.end;
  found[2] = p.needed;
  return needed;
}

size_t mined_triplet(const py::tuple& args, py::handle workspace, int threads) {
  Arguments in(args);
  auto [mined, p] = read_mined_triplet(in);
  p.threads = threads;
  const auto both = [&mined = mined](auto& loss) { return fm::mined_triplet(mined, loss); };
  return run(both, p, in, workspace);
}

// Reads a problem and runs it on a GPU: the one of that index, in the order of that stream.
template <auto read, auto operation>
size_t on_gpu(int index, uintptr_t stream, const py::tuple& args, py::handle workspace) {
  Arguments in(args);
  auto p = read(in);
  const fm::Device device{index, reinterpret_cast<void*>(stream)};
  return run([=](auto& problem) { return operation(problem, device); }, p, in, workspace);
}

// Reads what chooses triplets, and their loss.
template <auto read, auto operation>
size_t loss_on_gpu(int index, uintptr_t stream, const py::tuple& args, py::handle workspace) {
  Arguments in(args);
  auto [chosen, p] = read(in);
  const fm::Device device{index, reinterpret_cast<void*>(stream)};
  const auto both = [=, &chosen = chosen](auto& loss) { return operation(chosen, loss, device); };
  return run(both, p, in, workspace);
}

void narrow_products(const std::string& unit, py::handle rows, py::handle out) {
  const fm::bindings::TensorView from = fm::bindings::view_of(rows);
  auto* const to = static_cast<float*>(fm::bindings::view_of(out).data);
  raise(fm::narrow_products(unit, static_cast<const float*>(from.data), from.shape[0],
                            from.shape[1], to));
}

py::dict counters() {
  py::dict named;
  for (const auto& [name, count] : fm::counters()) named[py::str(name)] = count;
  return named;
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "FlashMetric's kernels. Private: use the functions of flashmetric.";
  m.def("mine", &on_cpu<read_mine, fm::mine>);
  m.def("list_triplets", &list_triplets);
  m.def("triplet", &on_cpu<read_triplet, fm::triplet>);
  m.def("mined_triplet", &mined_triplet);
  m.def("dense", &on_cpu<read_dense, fm::dense>);
  m.def("paired", &on_cpu<read_paired, fm::paired>);
  m.def("pairwise", &on_cpu<read_pairwise<false>, fm::pairwise>);
  m.def("pairwise_backward", &on_cpu<read_pairwise<true>, fm::pairwise_backward>);
  m.def("cuda_mine", &on_gpu<read_mine, fm::cuda_mine>);
  m.def("cuda_list_triplets", &on_gpu<read_cuda_list, fm::cuda_list_triplets>);
  m.def("cuda_listed_triplet", &loss_on_gpu<read_listed_triplet, fm::cuda_listed_triplet>);
  m.def("cuda_triplet", &on_gpu<read_triplet, fm::cuda_triplet>);
  m.def("cuda_mined_triplet", &loss_on_gpu<read_mined_triplet, fm::cuda_mined_triplet>);
  m.def("cuda_dense", &on_gpu<read_dense, fm::cuda_dense>);
  m.def("cuda_paired", &on_gpu<read_paired, fm::cuda_paired>);
  m.def("cuda_pairwise", &on_gpu<read_pairwise<false>, fm::cuda_pairwise>);
  m.def("cuda_pairwise_backward", &on_gpu<read_pairwise<true>, fm::cuda_pairwise_backward>);
  m.def("cuda_path", [](int major, int minor) {
    std::string name;
    raise(fm::cuda::path(major, minor, name));
    return name;
  });
  m.def("usual_device", &fm::bindings::usual_device);
  m.def("counters", &counters);
  m.def("reset_counters", &fm::reset_counters);
  m.def("set_slack_factor", &fm::set_slack_factor);
  m.def("rank_narrow_always", &fm::rank_narrow_always);
  m.def("decide_trials", &fm::decide_trials);
  m.def("narrow_products", &narrow_products);
  m.def("look_at_attributes", [](bool only) { fm::bindings::attributes_only = only; });
  m.def("isa", &fm::isa_in_use);
  m.def("isa_is_forced", &fm::isa_is_forced);
  m.def("isas", &fm::compiled_isas);
  m.def("force_isa", [](std::string_view name) { raise(fm::force_isa(name)); });
  m.def("environment_error", &fm::cpu::environment_error);
  m.def("build_info", &fm::build_info);
}
