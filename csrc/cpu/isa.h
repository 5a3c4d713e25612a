// SPDX-License-Identifier: BSD-3-Clause
// Chooses the instruction set: the best one that was compiled in and that this machine and its
// operating system support, or the one that FLASHMETRIC_ISA or force_isa() names.
#pragma once

#include "kernels.h"

namespace flashmetric::cpu {

// Never null. A forced ISA that the machine lacks is refused where it is forced.
const KernelTable& kernel_table();

// Why FLASHMETRIC_ISA could not be honoured; empty if it was, or is not set.
const Status& environment_error();

}  // namespace flashmetric::cpu
