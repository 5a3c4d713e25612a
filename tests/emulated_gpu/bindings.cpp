// SPDX-License-Identifier: BSD-3-Clause
// csrc/cuda as a Python module, with the functions of _C that start with cuda_.
#include "arguments.h"

namespace py = pybind11;
namespace fm = flashmetric;
using namespace fm::bindings;

namespace {

fm::Names names_of(const fm::MineProblem& problem) {
  fm::Names names;
  raise(fm::resolve(problem, names));
  return names;
}
fm::Names names_of(const fm::TripletProblem& problem) {
  fm::Names names;
  raise(fm::resolve(problem, names));
  return names;
}
fm::Names names_of(const fm::ListProblem& problem) {
  fm::Names names;
  raise(fm::resolve(problem, names));
  return names;
}
fm::Names names_of(const fm::DenseProblem& problem) {
  fm::Names names;
  raise(fm::resolve(problem, names));
  return names;
}
template <class Problem>
fm::Names names_of(const Problem& problem) {
  fm::Names names;
  raise(fm::resolve_distance("emulated", problem.distance, names));
  return names;
}

// Reads a problem and runs it.
template <class Read, class Run>
auto bound(const Read& read, const Run& run_problem) {
  return [=](int, uintptr_t, const py::tuple& args, py::handle workspace) {
    Arguments in(args);
    auto problem = read(in);
    const fm::Names names = names_of(problem);
    const auto one = [&](auto& given) { return run_problem(given, names, fm::Device{}); };
    return run(one, problem, in, workspace);
  };
}

size_t mined_triplet(int, uintptr_t, const py::tuple& args, py::handle workspace) {
  Arguments in(args);
  auto [mined, problem] = read_mined_triplet(in);
  fm::Names names = names_of(problem);
  names.mining = names_of(mined).mining;
  const auto both = [&, &mined = mined](fm::TripletProblem& loss) {
    return fm::cuda::mined_triplet(mined, loss, names, fm::Device{});
  };
  return run(both, problem, in, workspace);
}

size_t listed_triplet(int, uintptr_t, const py::tuple& args, py::handle workspace) {
  Arguments in(args);
  auto [lists, problem] = read_listed_triplet(in);
  fm::Names names = names_of(problem);
  names.mining = names_of(lists).mining;
  const auto both = [&, &lists = lists](fm::TripletProblem& loss) {
    return fm::cuda::listed_triplet(lists, loss, names, fm::Device{});
  };
  return run(both, problem, in, workspace);
}

}  // namespace

PYBIND11_MODULE(emulated, m) {
  m.def("cuda_mine", bound(read_mine, fm::cuda::mine));
  m.def("cuda_triplet", bound(read_triplet, fm::cuda::triplet));
  m.def("cuda_list_triplets", bound(read_cuda_list, fm::cuda::list_triplets));
  m.def("cuda_listed_triplet", &listed_triplet);
  m.def("cuda_mined_triplet", &mined_triplet);
  m.def("cuda_dense", bound(read_dense, fm::cuda::dense));
  m.def("cuda_paired", bound(read_paired, fm::cuda::paired));
  m.def("cuda_pairwise", bound(read_pairwise<false>, fm::cuda::pairwise));
  m.def("cuda_pairwise_backward", bound(read_pairwise<true>, fm::cuda::pairwise_backward));
  m.def("set_product_error", [](double share) { emulated::product_error = share; });
  m.def("counters", [] {
    const fm::cuda::Counters& calls = fm::cuda::call_counters;
    return std::map<std::string, int64_t>{{"cuda_mine", calls.mine},
                                          {"cuda_list_triplets", calls.list_triplets},
                                          {"cuda_triplet", calls.triplet},
                                          {"cuda_dense", calls.dense},
                                          {"cuda_paired", calls.paired},
                                          {"cuda_pairwise", calls.pairwise},
                                          {"cuda_pairwise_backward", calls.pairwise_backward},
                                          {"cuda_tiles", calls.tiles},
                                          {"cuda_keys", calls.keys}};
  });
}
