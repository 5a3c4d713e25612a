// SPDX-License-Identifier: BSD-3-Clause
// The whole registry mechanism: a policy is a struct with a `name`, a registry is a TypeList of
// them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// Policies are compiled once per instruction set. An inline function that is not inlined becomes a
// weak symbol, of which the linker keeps any one copy, perhaps the AVX-512 one: hence
// always_inline.
#if defined(__CUDACC__)
#define FM_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define FM_HD inline __attribute__((always_inline))
#else
#define FM_HD __forceinline
#endif

namespace flashmetric {

template <class... Policies>
struct TypeList {
  static constexpr int size = sizeof...(Policies);
};

// Position of the policy called `name`, -1 if there is none.
template <class... Policies>
constexpr int index_of_name(TypeList<Policies...>, std::string_view name) {
  int index = -1;
  int position = 0;
  ((index = Policies::name == name ? position : index, ++position), ...);
  return index;
}

template <class... Policies>
std::string names_of(TypeList<Policies...>) {
  std::string names;
  (names.append(names.empty() ? "" : ", ").append(Policies::name), ...);
  return names;
}

// Calls visitor(Policy{}) for the policy at `index`.
template <class... Policies, class Visitor>
FM_HD void visit_by_index(TypeList<Policies...>, int index, Visitor&& visitor) {
  int position = 0;
  ((position++ == index ? visitor(Policies{}) : void()), ...);
}

}  // namespace flashmetric
