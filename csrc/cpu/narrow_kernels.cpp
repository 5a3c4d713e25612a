// SPDX-License-Identifier: BSD-3-Clause
// Compiled for instruction sets that multiply bytes or bfloat16 pairs: mining that ranks with them.
// All else, and what is too small to gain, is done by the kernels of the instruction set below.
#include "narrow_kernels.h"

#include "../test_hooks.h"
#include "mine.h"

#if defined(__AMX_BF16__)
#include "amx_tiles.h"
#elif defined(FLASHMETRIC_BYTE_PRODUCTS)
#include "int8_tiles.h"
#else
#error "narrow_kernels.cpp needs an instruction set that multiplies bytes or bfloat16 pairs."
#endif
#if defined(FLASHMETRIC_PAIR_PRODUCTS)
#include "bf16_tiles.h"
#endif

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

bool always = false;

namespace {

#if defined(__AMX_BF16__)
using AllTiles = Units<AmxTiles>;
#elif defined(FLASHMETRIC_PAIR_PRODUCTS)
using AllTiles = Units<Int8Tiles, Bf16Tiles>;
#else
using AllTiles = Units<Int8Tiles, FullTiles<float> >;
#endif

// Measured on Zen 4, time as a share of float32 tiles: 0.99 at 128 x 128 pairs of 32 features, 0.79
// at 128 features; 1.0 to 1.1 at 64 x 64 pairs or at 16 features, where tiles are not what takes
// the time.
constexpr double kNarrowPairs = 128 * 128;
constexpr int64_t kNarrowDim = 32;

bool pays(KeyForm key, const MineProblem& problem) {
  return key.of_products() && problem.dtype == DType::float32 &&
         (always || (problem.dim >= kNarrowDim && pair_count(problem) >= kNarrowPairs));
}

// A block of packed rows, in the place of a set.
struct OneBlock {
  const uint32_t* packed;
  template <class>
  FM_INLINE const uint32_t* tile(int64_t row, int64_t) const {
    return packed + row;
  }
};

struct BlockPairOfTests {
  const OneBlock* query;
  const OneBlock* ref;
};

}  // namespace

void mine(MineProblem& problem, Names names) {
  const KeyForm key = key_form(names.distance, names.power, problem.normalize);
  if (!pays(key, problem)) return avx512::table.mine(problem, names);
  visit_by_index(Miners{}, names.mining,
                 [&](auto miner) { mine_rows<float, AllTiles, decltype(miner)>(key, problem); });
}

namespace {

template <class Tiles>
void products_of(const float* rows, int64_t n, int64_t dim, float* out) {
  static_assert(kMaxHookRows == kBlock);
  constexpr int width = kWidth<float>;
  const float centre[kMaxHookDim] = {};
  alignas(64) uint32_t packed[Tiles::depth(kMaxHookDim) * kBlock];
  for (int group = 0; group < kBlock; group += width) {
    PackedRow<float> row[width];
    for (int64_t r = 0; r < width; ++r) {
      row[r].from = group + r < n ? rows + (group + r) * dim : nullptr;
      row[r].scale = 1;
    }
    Tiles::pack(row, {centre, 1, false}, dim, group, packed);
  }
  const OneBlock set{packed};
  const BlockPairOfTests pair{&set, &set};
  Tiles::Session::begin();
  const typename Tiles::Block block(pair, 0, 0, dim);
  Tiles::Session::end();
  for (int32_t i = 0; i < n; i += kTileRows) {
    for (int32_t j = 0; j < n; j += kTileCols<float>) {
      TileSums<float> sums;
      Tiles::compute(block, pair, i, j, dim, sums);
      for (int64_t r = 0; r < kTileRows && i + r < n; ++r) {
        for (int64_t c = 0; c < kTileCols<float> && j + c < n; ++c) {
          out[(i + r) * n + j + c] = sums[r][c / width][c % width];
        }
      }
    }
  }
}

}  // namespace

bool products(std::string_view unit, const float* rows, int64_t n, int64_t dim, float* out) {
#if defined(FLASHMETRIC_BYTE_PRODUCTS) && !defined(__AMX_BF16__)
  if (unit == "int8") return products_of<Int8Tiles>(rows, n, dim, out), true;
#endif
#if defined(__AMX_BF16__)
  if (unit == "bf16") return products_of<AmxTiles>(rows, n, dim, out), true;
#elif defined(FLASHMETRIC_PAIR_PRODUCTS)
  if (unit == "bf16") return products_of<Bf16Tiles>(rows, n, dim, out), true;
#endif
  return false;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
