// SPDX-License-Identifier: BSD-3-Clause
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <iterator>

#include "../test_hooks.h"
#include "narrow_kernels.h"

#if defined(FLASHMETRIC_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace flashmetric {
namespace cpu {

Counters call_counters{};
double slack_factor = 1;
int trial_verdict = 0;

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
[[maybe_unused]] bool has_avx512_vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
[[maybe_unused]] bool has_avx512_bf16() {
  return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

#if defined(FLASHMETRIC_HAS_AMX)
// Whether the processor has tiles and multiplies bfloat16 with them.
bool has_matrix_unit() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned wanted = 1U << 22 | 1U << 24;  // AMX-BF16, AMX-TILE
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & wanted) == wanted;
}

// Linux lends the 8 KiB of a thread's tiles to processes that ask for them, once for all threads.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Whole numbers, whose products and sums are exact in any order: a unit that lays its operands out
// otherwise is found out before it decides anything.
bool multiplies_as_assumed() {
  constexpr int64_t n = kMaxHookRows;
  constexpr int64_t dim = 70;  // two whole chunks and a part of one
  static float rows[n * dim];
  static float out[n * n];
  for (int64_t k = 0; k < n * dim; ++k) rows[k] = static_cast<float>(k * k % 23 - k % 7);
  amx::products("bf16", rows, n, dim, out);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < dim; ++k) sum += rows[i * dim + k] * rows[j * dim + k];
      if (out[i * n + j] != sum) return false;
    }
  }
  return true;
}

bool has_amx() {
  static const bool has =
      has_avx512_bf16() && has_matrix_unit() && may_use_tiles() && multiplies_as_assumed();
  return has;
}
#endif

#if defined(FLASHMETRIC_HAS_AVX512_VNNI)
// Built here, where nothing is compiled for more than the machine that loads the library.
KernelTable with_mine(void (*mine)(MineProblem&, Names)) {
  KernelTable table = avx512::table;
  table.mine = mine;
  return table;
}
const KernelTable avx512_vnni_table = with_mine(avx512_vnni::mine);
#endif
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
const KernelTable avx512_bf16_table = with_mine(avx512_bf16::mine);
#endif
#if defined(FLASHMETRIC_HAS_AMX)
const KernelTable amx_table = with_mine(amx::mine);
#endif

struct Isa {
  std::string_view name;
  bool (*supported)();
  const KernelTable* table;
};

constexpr Isa kIsas[] = {
#if defined(FLASHMETRIC_HAS_AMX)
    {"amx", has_amx, &amx_table},
#endif
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
    {"avx512_bf16", has_avx512_bf16, &avx512_bf16_table},
#endif
#if defined(FLASHMETRIC_HAS_AVX512_VNNI)
    {"avx512_vnni", has_avx512_vnni, &avx512_vnni_table},
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

void decide_trials(int verdict) { cpu::trial_verdict = verdict; }

void rank_narrow_always([[maybe_unused]] bool always) {
#if defined(FLASHMETRIC_HAS_AVX512_VNNI)
  cpu::avx512_vnni::always = always;
#endif
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
  cpu::avx512_bf16::always = always;
#endif
#if defined(FLASHMETRIC_HAS_AMX)
  cpu::amx::always = always;
#endif
}

Status narrow_products([[maybe_unused]] std::string_view unit, [[maybe_unused]] const float* rows,
                       int64_t n, int64_t dim, [[maybe_unused]] float* out) {
  if (n > kMaxHookRows || dim > kMaxHookDim) return "[narrow_products] too many rows or features.";
  bool known = false;
  [[maybe_unused]] const std::string_view isa = isa_in_use();
#if defined(FLASHMETRIC_HAS_AMX)
  if (isa == "amx") known = cpu::amx::products(unit, rows, n, dim, out);
#endif
#if defined(FLASHMETRIC_HAS_AVX512_BF16)
  if (isa == "avx512_bf16") known = cpu::avx512_bf16::products(unit, rows, n, dim, out);
#endif
#if defined(FLASHMETRIC_HAS_AVX512_VNNI)
  if (isa == "avx512_vnni") known = cpu::avx512_vnni::products(unit, rows, n, dim, out);
#endif
  return known ? Status{} : "[narrow_products] the instruction set in use has no such unit.";
}

}  // namespace flashmetric
