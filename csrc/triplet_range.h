// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. The sets of triplets that a dense loss may sum over.
#pragma once

#include <string_view>

#include "policy.h"

namespace flashmetric {

constexpr double kNever = __builtin_huge_val();

// Which triplets of a pair (a, p) are members, by diff = d_an - d_ap; NaN belongs to every set.
struct TripletRange {
  enum Kind { all, semihard, hard, easy } kind;

  explicit TripletRange(std::string_view name)
      : kind(name == "semihard_all" ? semihard
             : name == "hard_all"   ? hard
             : name == "easy_all"   ? easy
                                    : all) {}
  FM_HD bool above(double diff, double margin) const {
    return kind == all || kind == hard || !(diff <= (kind == easy ? margin : 0));
  }
  FM_HD bool below(double diff, double margin) const {
    return kind == all || kind == easy || !(diff > (kind == hard ? 0 : margin));
  }
  FM_HD bool contains(double diff, double margin) const {
    return above(diff, margin) && below(diff, margin);
  }
  // d_an of the members lies between.
  FM_HD double low(double d_ap, double margin) const {
    return kind == semihard ? d_ap : kind == easy ? d_ap + margin : -kNever;
  }
  FM_HD double high(double d_ap, double margin) const {
    return kind == hard ? d_ap : kind == semihard ? d_ap + margin : kNever;
  }
};

}  // namespace flashmetric
