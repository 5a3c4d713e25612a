// SPDX-License-Identifier: BSD-3-Clause
// How far the score of a tile may be from the truth, so that no tile can decide what only the
// float64 keys may decide. Proof and notation: docs/numerics.md.
//
// For row i and column j, y = (x * scale - centre) * unit, the score of a role is
//   score_ij = sign * (offset_j - <y_i, y_j>),  sign +1 to seek the nearest, -1 the farthest,
//   offset_j = |y_j|^2 / 2 (difference keys)  or  -<centre, y_j> (product keys; of normalised rows
//   |y_j|^2 / 2 does as well),
// which orders the columns of a row as the keys do. Tiles hold
//   lower_ij = fl(sign * offset_j - slack_j -+ <y_i, y_j>),
// and for every pair   lower_ij - slack_i <= score_ij <= lower_ij + 2 slack_j + slack_i.
// Hence column j can be the choice of row i only if
//   lower_ij <= threshold_i = min over columns (lower + 2 slack_column) + 2 slack_i.
#pragma once

#include "key_form.h"

namespace flashmetric {

template <class T>
struct Precision;
template <>
struct Precision<float> {
  static constexpr double roundoff = 0x1p-24;
  static constexpr double smallest = 0x1p-126;  // normal: products below may be flushed to zero
  static constexpr double max_norm = 0x1p+120;  // rows beyond are left to the keys
  static constexpr double min_norm = 0x1p-100;  // so is a batch that is smaller as a whole
  static constexpr float highest = 0x1.fffffep+127F;
};
template <>
struct Precision<double> {
  static constexpr double roundoff = 0x1p-53;
  static constexpr double smallest = 0x1p-1022;
  static constexpr double max_norm = 0x1p+500;  // its square, the key, is still finite
  static constexpr double min_norm = 0x1p-400;  // its square is still normal
  static constexpr double highest = 0x1.fffffffffffffp+1023;
};

// Lengths of one row in the scaled frame.
struct RowLengths {
  double centred;  // |y|
  double full;     // |x * scale| * unit: what the keys are computed from
  double centre;   // |centre| * unit
  double unit;
  double gap = 0;  // of normalised rows that are shorter: the half square they lack (prepare.h)
  double residual = 0;  // |y - b|, b: y as a narrower tile holds it
  double low = 0;       // of b split in two: the length of the second half
  double running = 0;   // sum, over steps of eight products, of the square of y up to there
};

// What may be flushed to zero, in tiles (x - centre before it is scaled up) and in float64 keys.
template <class T>
FM_HD double flushed(KeyFacts key, RowLengths row, double dim) {
  const double key_unit = row.unit * (key.needs_norms() ? 1 / kMinNorm : 1);
  return 8 * (dim + 1) * Precision<T>::smallest * (row.unit > 1 ? row.unit : 1) +
         (dim + 8) * 0x1p-1022 * key_unit * key_unit;
}

template <class T>
FM_HD T row_slack(KeyFacts key, RowLengths row, double dim) {
  constexpr double u = Precision<T>::roundoff;
  const bool product = key.form == Form::product;
  const double half_centred = row.centred * row.centred / 2;
  const double half_full = row.full * row.full / 2;
  // dim roundings in the inner product, dim / 2 in |y|^2 (at least 2 lanes), dim / 4 in a key; the
  // rest is for y, offset, lower and threshold. Each is at most u (|y_i|^2 + |y_j|^2) / 2.
  double slack = u * (1.75 * dim + 64) * half_centred;
  // Normalising rounds twice relative to the whole row, not to its centred part.
  // So does the mean of a row that is subtracted from it.
  if (key.maps_rows() || key.quotient) slack += 8 * u * half_full;
  // <centre, y>, and the keys' own rounding where it is relative to the whole row.
  if (product) {
    const double rounded = row.centred + (key.needs_norms() ? row.full : 0);
    slack += u * (dim / 2 + 24) * row.centre * rounded;
  }
  if (product || key.needs_norms()) slack += 0x1p-53 * (dim / 4 + 64) * half_full;
  if (key.relative) slack += 0x1p-53 * (dim + 64) * half_full;
  slack += flushed<T>(key, row, dim);
  return static_cast<T>(slack * (1 + 0x1p-20));  // 2^-20: the casts to T round the slack itself
}

// Where a distance is a sum over features without a sign to cancel by, tiles are right up to this
// fraction of themselves, whatever the rows.
template <class T>
FM_HD double relative_error(KeyFacts key, double dim) {
  constexpr double u = Precision<T>::roundoff;
  if (key.of_products()) return 0;
  // The sum, the power of a rounded gap (vector_power.h), and lower, threshold and quotient.
  const double sum = key.form == Form::maximum ? 0 : dim;
  const double term = key.form == Form::power ? 5 * key.power + 8 : 1;
  return (sum + term + 16) * u;
}

// Beyond this error the bound below is worth nothing, and keys judge every row.
constexpr double kWorstError = 0.0625;

// By how much of itself a score must be widened: ((1 + e) / (1 - e))^2 - 1 <= 6 e for e <= 1/16.
template <class T>
FM_HD T score_spread(KeyFacts key, double dim) {
  return static_cast<T>(6 * relative_error<T>(key, dim));
}

// What is absolute in the error of such a tile. `total` is the sum of the features, in the frame.
template <class T>
FM_HD T elementwise_slack(KeyFacts key, RowLengths row, double total, double dim) {
  constexpr double u = Precision<T>::roundoff;
  const double p = key.form == Form::power ? key.power : 1;
  const double flushed = 4 * (dim + 1) * p * Precision<T>::smallest * (row.unit > 1 ? row.unit : 1);
  double slack = flushed;
  if (key.form == Form::overlap) {
    // Of a quotient of sums: relative to them, and that of the key, which is near 1 for near rows.
    slack = total > 0 ? 2 * flushed / total : 0;
    slack += (key.scaled ? 4 * u : 0) + (dim / 2 + 16) * 0x1p-53;
  } else if (key.scaled) {
    // Features rounded three times; gaps are at most 1, so their powers grow p times as fast.
    slack += 3 * u * p * square_root(dim) * row.centred;
  }
  constexpr double most = 4;  // twice what any overlap can differ by; other sums are below 4 dim
  slack = 7 * slack;
  return static_cast<T>(key.form == Form::overlap && !(slack < most) ? most : slack);
}

template <class T>
FM_HD T any_slack(KeyFacts key, RowLengths row, double total, double dim) {
  return key.of_products() ? row_slack<T>(key, row, dim)
                           : elementwise_slack<T>(key, row, total, dim);
}

// Of h = half_i + half_j - <y_i, y_j> (cpu/dense_rows.h), where products are added up in segments
// and the halves rounded once: h is within slack_i + slack_j of what the key makes of it. Proof:
// docs/numerics-mining.md.
template <class T>
FM_HD T segmented_slack(KeyFacts key, RowLengths row, double dim, double segment) {
  constexpr double u = Precision<T>::roundoff;
  const bool product = key.form == Form::product;
  const double half_centred = row.centred * row.centred / 2;
  const double half_full = row.full * row.full / 2;
  // A segment's roundings, one for each segment, 4 for y, 1 for the half, 3 where h is put
  // together; 2 are spare. Each is at most u (|y_i|^2 + |y_j|^2) / 2.
  double slack = u * (segment + (dim / segment + 1) + 10) * half_centred;
  if (key.maps_rows() || key.quotient) slack += 8 * u * half_full;
  // Halves of products are <centre, y> + |centre|^2 / 2: 4 and 3 roundings.
  if (product) slack += 8 * u * row.centre * (row.centred + row.centre / 2);
  const bool full = product || key.needs_norms();
  slack += 0x1p-53 * (dim / 4 + 64) * (full ? half_full : half_centred);
  if (key.relative) slack += 0x1p-53 * (dim + 64) * half_full;
  return static_cast<T>((slack + flushed<T>(key, row, dim)) * (1 + 0x1p-20));
}

// The slack of a score. Rows that are normalised (in float64, so that y rounds once) and whose
// offset is |y|^2 / 2 + gap are compared like plain differences; their keys round in float64 too.
template <class T>
FM_HD T score_slack(KeyFacts key, RowLengths row, double total, double dim) {
  if (!key.equally_long()) return any_slack<T>(key, row, total, dim);
  double slack = 0x1p-53 * (dim / 4 + 80) * row.full * row.full / 2;
  slack += 32 * Precision<T>::roundoff * row.gap;
  const double key_unit = row.unit / kMinNorm;
  slack += (dim + 8) * 0x1p-1022 * key_unit * key_unit;
  // 2^-19: like row_slack, and once more for the sum.
  return row_slack<T>({Form::difference, false, false}, row, dim) +
         static_cast<T>(slack * (1 + 0x1p-19));
}

// What products lose when y is rounded to b. With m = (y + b) / 2 and r = y - b, <y_i, y_j> -
// <b_i, b_j> = <m_i, r_j> + <r_i, m_j>: at most |m_i| |r_j| + |r_i| |m_j|, and 2 a b <= t a^2 +
// b^2 / t for any t. The typical |r| / |y| makes the sum smallest.
FM_HD double rounded_slack(RowLengths row, double t, double dim) {
  const double middle = row.centred + row.residual / 2;
  const double slack = (t * middle * middle + row.residual * row.residual / t) / 2;
  return slack * (1 + Precision<float>::roundoff * (dim + 64));  // |y| and |r| are computed
}

// What to add where tiles multiply b, y rounded to bfloat16, instead of y.
FM_HD float bf16_slack(RowLengths row, double dim) {
  constexpr double u = Precision<float>::roundoff;
  double slack = rounded_slack(row, 0x1.bp-10, dim);  // the typical |r| / |y| of 8 bits
  // The unit may add in any order and round each sum badly: up to 2.2 dim u, of which row_slack has
  // dim u.
  slack += 1.5 * u * dim * row.centred * row.centred / 2;
  // What squares of r lose when they are flushed to zero.
  slack += 512 * (dim + 1) * Precision<float>::smallest;
  return static_cast<float>(slack * (1 + 0x1p-19));
}

// What to add where tiles multiply b, y rounded to whole multiples of its step, instead of y. Whole
// numbers are added up exactly. Proof: docs/numerics-mining.md.
FM_HD float int8_slack(RowLengths row, double dim) {
  constexpr double u = Precision<float>::roundoff;
  // The typical |r| / |y| of 128 random numbers, the largest of which is 127 steps.
  double slack = rounded_slack(row, 0x1.ap-8, dim);
  // The sum becomes a float and is scaled twice; b_k is at most 2 y_k.
  slack += 16 * u * row.centred * row.centred / 2;
  // What squares of r lose when they are flushed to zero, and scaled sums.
  slack += 512 * (dim + 1) * Precision<float>::smallest;
  return static_cast<float>(slack * (1 + 0x1p-19));
}

// What to add where tiles multiply b = h + l, y rounded to bfloat16 twice, instead of y, and leave
// <l_i, l_j> away: products of h and l first, then those of h, and then the offset. Proof:
// docs/numerics-mining.md.
FM_HD float split_slack(RowLengths row, double dim) {
  constexpr double u = Precision<float>::roundoff;
  // As above, for the typical |r| / |y| of rounding to 8 bits twice, (1.65e-3)^2; and
  // |<l_i, l_j>| <= (|l_i|^2 + |l_j|^2) / 2.
  constexpr double t = 0x1.7p-19;
  const double middle = row.centred + row.residual / 2;
  double slack = (t * middle * middle + row.residual * row.residual / t + row.low * row.low) / 2;
  slack *= 1 + u * (dim + 64);  // the lengths are computed
  // A step errs by 20 u of the sum so far. The sums of h and l are below 2^-8 of all, in three
  // times as many steps; what is charged in row_slack for products, for |y|^2 in two lanes and for
  // keys in float32 is not needed.
  slack += u * (10.3 * row.running + (0.05 - 1.7) * dim * row.centred * row.centred / 2);
  // What squares of r and l lose when they are flushed to zero, and l itself.
  slack += 1024 * (dim + 1) * Precision<float>::smallest;
  return static_cast<float>(slack);
}

}  // namespace flashmetric
