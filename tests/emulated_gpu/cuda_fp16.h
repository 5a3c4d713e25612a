// SPDX-License-Identifier: BSD-3-Clause
#pragma once

struct __half {
  _Float16 value;
  explicit operator float() const { return static_cast<float>(value); }
};
inline float __half2float(__half x) { return static_cast<float>(x.value); }
