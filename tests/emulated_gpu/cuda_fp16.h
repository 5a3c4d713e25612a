// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
  explicit operator float() const {
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    float value = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    if (exponent == 0) value = std::ldexp(static_cast<float>(mantissa), -24);
    if (exponent == 31) value = mantissa == 0 ? HUGE_VALF : NAN;
    return (bits & 0x8000) != 0 ? -value : value;
  }
};
inline float __half2float(__half x) { return static_cast<float>(x); }
