// SPDX-License-Identifier: BSD-3-Clause
// csrc/cpu/narrow_kernels.cpp for AMX as a Python module, with the functions of _C that reach it.
#include "arguments.h"
#include "cpu/mine.h"
#include "cpu/narrow_kernels.h"

namespace py = pybind11;
namespace fm = flashmetric;
using namespace fm::bindings;

namespace flashmetric::cpu {

Counters call_counters{};
double slack_factor = 1;
int trial_verdict = 0;

namespace {

// What the instruction set below does with what is too small to gain.
void mine_in_float32(MineProblem& problem, Names names) {
  const amx::KeyForm key = amx::key_form(names.distance, names.power, problem.normalize);
  visit_by_index(Miners{}, names.mining, [&](auto miner) {
    amx::mine_rows<float, amx::Units<amx::FullTiles<float>>, decltype(miner)>(key, problem);
  });
}

}  // namespace

namespace avx512 {
const KernelTable table{mine_in_float32, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
}  // namespace avx512

}  // namespace flashmetric::cpu

namespace {

size_t mine(const py::tuple& args, py::handle workspace, int threads) {
  Arguments in(args);
  auto problem = read_mine(in);
  problem.threads = threads;
  const auto one = [](fm::MineProblem& given) -> fm::Status {
    fm::Names names;
    if (fm::Status status = fm::resolve(given, names); !status.empty()) return status;
    fm::cpu::amx::mine(given, names);
    return {};
  };
  return run(one, problem, in, workspace);
}

void narrow_products(const std::string& unit, py::handle rows, py::handle out) {
  const TensorView from = view_of(rows);
  auto* const to = static_cast<float*>(view_of(out).data);
  fm::cpu::amx::products(unit, static_cast<const float*>(from.data), from.shape[0], from.shape[1],
                         to);
}

}  // namespace

PYBIND11_MODULE(emulated_amx, m) {
  m.def("mine", &mine);
  m.def("narrow_products", &narrow_products);
  m.def("decide_trials", [](int verdict) { fm::cpu::trial_verdict = verdict; });
  m.def("set_slack_factor", [](double factor) { fm::cpu::slack_factor = factor; });
  m.def("rank_narrow_always", [](bool always) { fm::cpu::amx::always = always; });
  m.def("counters", [] {
    const fm::cpu::Counters& calls = fm::cpu::call_counters;
    return std::map<std::string, int64_t>{{"mine", calls.mine},
                                          {"candidates", calls.candidates},
                                          {"rescored", calls.rescored},
                                          {"fallback_rows", calls.fallback_rows},
                                          {"brute_rows", calls.brute_rows}};
  });
}
