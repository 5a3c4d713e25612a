// SPDX-License-Identifier: BSD-3-Clause
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <iterator>

#include "../test_hooks.h"
#include "bf16_kernels.h"

namespace flashmetric {
namespace cpu {

Counters call_counters{};
double slack_factor = 1;

namespace {

bool always() { return true; }

#if defined(__x86_64__)
// __builtin_cpu_supports also asks the operating system (xgetbv) whether it saves the registers.
[[maybe_unused]] bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
[[maybe_unused]] bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
[[maybe_unused]] bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

#if defined(FLASHMETRIC_HAS_AVX512_BF16)
// Built here, where nothing is compiled for more than the machine that loads the library.
const KernelTable avx512_bf16_table = [] {
  KernelTable table = avx512::table;
  table.mine = avx512_bf16::mine;
  return table;
}();
#endif

struct Isa {
  std::string_view name;
  bool (*supported)();
  const KernelTable* table;
};

constexpr Isa kIsas[] = {
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
    {"avx512_bf16", has_avx512_bf16, &avx512_bf16_table},
#endif
#if defined(FLASHMETRIC_HAS_AVX512)
    {"avx512", has_avx512, &avx512::table},
#endif
#if defined(FLASHMETRIC_HAS_AVX2)
    {"avx2", has_avx2, &avx2::table},
#endif
    {"portable", always, &portable::table},
};

std::atomic<const Isa*> forced{nullptr};

const Isa& best() {
  static const Isa& isa = []() -> const Isa& {
    for (const Isa& candidate : kIsas) {
      if (candidate.supported()) return candidate;
    }
    return *std::prev(std::end(kIsas));
  }();
  return isa;
}

Status force(std::string_view name) {
  if (name.empty()) {
    forced = nullptr;
    return {};
  }
  std::string known;
  for (const Isa& isa : kIsas) {
    known.append(known.empty() ? "" : ", ").append(isa.name);
    if (isa.name != name) continue;
    if (!isa.supported()) return "this machine does not support " + std::string(name) + ".";
    forced = &isa;
    return {};
  }
  return "unknown instruction set '" + std::string(name) + "'; compiled in: " + known + ".";
}

const Isa& current() {
  environment_error();  // reads FLASHMETRIC_ISA the first time
  const Isa* isa = forced;
  return isa == nullptr ? best() : *isa;
}

}  // namespace

const Status& environment_error() {
  static const Status error = [] {
    const char* name = std::getenv("FLASHMETRIC_ISA");
    const Status status = force(name == nullptr ? "" : name);
    return status.empty() ? status : "[FLASHMETRIC_ISA] " + status;
  }();
  return error;
}

const KernelTable& kernel_table() { return *current().table; }

}  // namespace cpu

std::vector<std::pair<std::string_view, bool>> compiled_isas() {
  std::vector<std::pair<std::string_view, bool>> isas;
  for (const auto& isa : cpu::kIsas) isas.emplace_back(isa.name, isa.supported());
  return isas;
}

std::string_view isa_in_use() { return cpu::current().name; }

bool isa_is_forced() {
  cpu::environment_error();
  return cpu::forced != nullptr;
}

Status force_isa(std::string_view name) {
  cpu::environment_error();
  const Status status = cpu::force(name);
  return status.empty() ? status : "[force_isa] " + status;
}

void set_slack_factor(double factor) { cpu::slack_factor = factor; }

void rank_narrow_always([[maybe_unused]] bool always) {
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
  cpu::avx512_bf16::always = always;
#endif
}

Status pair_products([[maybe_unused]] const float* rows, int64_t n, int64_t dim,
                     [[maybe_unused]] float* out) {
  if (n > kMaxHookRows || dim > kMaxHookDim) return "[pair_products] too many rows or features.";
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
  if (cpu::has_avx512_bf16()) {
    cpu::avx512_bf16::pair_products(rows, n, dim, out);
    return {};
  }
#endif
  return "[pair_products] this machine does not multiply bfloat16 pairs.";
}

}  // namespace flashmetric
