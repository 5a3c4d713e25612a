// SPDX-License-Identifier: BSD-3-Clause
// What the key of a pair needs of its rows: the facts of a distance, with normalisation.
#pragma once

#include "distances.h"

namespace flashmetric {

struct KeyFacts {
  Form form;
  bool quotient;
  bool scaled;
  bool relative = false;
  int distance = 0;  // position in Distances
  double power = 2;

  FM_HD bool needs_norms() const { return quotient || scaled; }
  FM_HD bool needs_means() const { return relative || form == Form::overlap; }
  FM_HD bool maps_rows() const { return scaled || relative; }
  // Rows that are normalised, and not changed after that: all of one length, but for the shortest.
  FM_HD bool equally_long() const { return needs_norms() && of_products() && !relative; }
  // Ranked by inner products, not feature by feature.
  FM_HD bool of_products() const { return form == Form::difference || form == Form::product; }
};

FM_HD KeyFacts key_facts(int distance, double power, bool normalize) {
  KeyFacts key{};
  visit_by_index(Distances{}, distance, [&](auto policy) {
    using Policy = decltype(policy);
    key = {Policy::form,     Policy::quotient, normalize && !Policy::quotient,
           Policy::relative, distance,         power};
  });
  return key;
}

}  // namespace flashmetric
