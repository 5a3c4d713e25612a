// SPDX-License-Identifier: BSD-3-Clause
// Hands problems, their names resolved, to the kernels of the device and ISA.
#include <algorithm>
#include <iterator>
#include <sstream>

#include "arena.h"
#include "cpu/isa.h"
#include "cuda.h"
#include "list_rules.h"

namespace flashmetric {

namespace {

// run(names), with the names of all the problems resolved.
template <class Run, class... Problems>
Status with_names(const Run& run, const Problems&... problems) {
  Names names;
  Status status;
  const bool known = ((status = resolve(problems, names)).empty() && ...);
  return known ? run(names) : status;
}

template <class Problem>
Status on_cpu(void (*cpu::KernelTable::*kernel)(Problem&, Names), Problem& problem) {
  return with_names(
      [&](Names names) {
        (cpu::kernel_table().*kernel)(problem, names);
        return Status{};
      },
      problem);
}

template <auto kernel, class... Problems>
Status on_gpu(Device device, Problems&... problems) {
  return with_names([&](Names names) { return kernel(problems..., names, device); }, problems...);
}

}  // namespace

Status mine(MineProblem& problem) { return on_cpu(&cpu::KernelTable::mine, problem); }
Status triplet(TripletProblem& problem) { return on_cpu(&cpu::KernelTable::triplet, problem); }
Status paired(PairedProblem& problem) { return on_cpu(&cpu::KernelTable::paired, problem); }
Status pairwise(PairwiseProblem& problem) { return on_cpu(&cpu::KernelTable::pairwise, problem); }
Status pairwise_backward(PairwiseProblem& problem) {
  return on_cpu(&cpu::KernelTable::pairwise_backward, problem);
}

Status mined_triplet(MineProblem& mined, TripletProblem& loss) {
  Arena arena(loss.workspace);
  auto* const own = mined.positive != nullptr ? nullptr : arena.take<int64_t>(2 * loss.n);
  if (own != nullptr) {
    mined.positive = own;
    mined.negative = own + loss.n;
  }
  loss.index[1] = mined.positive;
  loss.index[2] = mined.negative;
  if (!arena.counting()) loss.workspace = arena.rest(loss.workspace);
  mined.workspace = loss.workspace;
  mined.threads = loss.threads;
  Status status = mine(mined);
  if (status.empty()) status = triplet(loss);
  loss.workspace.bytes = arena.bytes() + std::max(loss.workspace.bytes, mined.workspace.bytes);
  return status;
}

Status list_triplets(ListProblem& problem) {
  const auto run = [&](Names names) {
    const bool usual = problem.mining == SemiHard::name && problem.hardness == 0.5;
    if (problem.for_loss && usual && cpu::semihard_is_dense(problem, names)) {
      problem.end = -1;
    } else {
      cpu::kernel_table().list_triplets(problem, names);
    }
    return Status{};
  };
  return with_names(run, problem);
}

Status dense(DenseProblem& problem) {
  const auto run = [&](Names names) -> Status {
    if (problem.loss == SemiHard::name && !cpu::semihard_is_dense(problem, names)) {
      return "[dense] semihard takes float32 rows, large classes and a distance of products.";
    }
    cpu::kernel_table().dense(problem, names);
    return {};
  };
  return with_names(run, problem);
}

Status cuda_mine(MineProblem& problem, Device device) {
  return on_gpu<cuda::mine>(device, problem);
}
Status cuda_triplet(TripletProblem& problem, Device device) {
  return on_gpu<cuda::triplet>(device, problem);
}
Status cuda_mined_triplet(MineProblem& mined, TripletProblem& loss, Device device) {
  return on_gpu<cuda::mined_triplet>(device, mined, loss);
}
Status cuda_list_triplets(ListProblem& problem, Device device) {
  return on_gpu<cuda::list_triplets>(device, problem);
}
Status cuda_listed_triplet(ListProblem& lists, TripletProblem& loss, Device device) {
  return on_gpu<cuda::listed_triplet>(device, lists, loss);
}
Status cuda_dense(DenseProblem& problem, Device device) {
  return on_gpu<cuda::dense>(device, problem);
}
Status cuda_paired(PairedProblem& problem, Device device) {
  return on_gpu<cuda::paired>(device, problem);
}
Status cuda_pairwise(PairwiseProblem& problem, Device device) {
  return on_gpu<cuda::pairwise>(device, problem);
}
Status cuda_pairwise_backward(PairwiseProblem& problem, Device device) {
  return on_gpu<cuda::pairwise_backward>(device, problem);
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
