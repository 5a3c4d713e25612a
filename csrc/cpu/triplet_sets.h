// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. The sets of triplets that a dense loss may sum over.
#pragma once

#include <string_view>

#include "../policy.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr double kNever = __builtin_huge_val();

// Which triplets of a pair (a, p) are members, by diff = d_an - d_ap; NaN belongs to every set.
struct TripletSet {
  enum Kind { all, semihard, hard, easy } kind;

  explicit TripletSet(std::string_view name)
      : kind(name == "semihard_all" ? semihard
             : name == "hard_all"   ? hard
             : name == "easy_all"   ? easy
                                    : all) {}
  FM_INLINE bool contains(double diff, double margin) const {
    const bool above = kind == all || kind == hard || !(diff <= (kind == easy ? margin : 0));
    const bool below = kind == all || kind == easy || !(diff > (kind == hard ? 0 : margin));
    return above && below;
  }
  // d_an of the members lies between.
  FM_INLINE double low(double d_ap, double margin) const {
    return kind == semihard ? d_ap : kind == easy ? d_ap + margin : -kNever;
  }
  FM_INLINE double high(double d_ap, double margin) const {
    return kind == hard ? d_ap : kind == semihard ? d_ap + margin : kNever;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
