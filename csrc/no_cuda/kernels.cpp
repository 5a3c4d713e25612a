// SPDX-License-Identifier: BSD-3-Clause
// The CUDA side of a build without CUDA.
#include "../cuda.h"

namespace flashmetric {

bool built_with_cuda() { return false; }

namespace cuda {
namespace {

constexpr const char* kNone = "[flashmetric] this build has no CUDA kernels.";

}  // namespace

Counters call_counters{};

Status mine(MineProblem&, Names, Device) { return kNone; }
Status triplet(TripletProblem&, Names, Device) { return kNone; }
Status mined_triplet(MineProblem&, TripletProblem&, Names, Device) { return kNone; }
Status list_triplets(ListProblem&, Names, Device) { return kNone; }
Status listed_triplet(ListProblem&, TripletProblem&, Names, Device) { return kNone; }
Status dense(DenseProblem&, Names, Device) { return kNone; }
Status paired(PairedProblem&, Names, Device) { return kNone; }
Status pairwise(PairwiseProblem&, Names, Device) { return kNone; }
Status pairwise_backward(PairwiseProblem&, Names, Device) { return kNone; }
Status path(int, int, std::string&) { return {}; }

}  // namespace cuda
}  // namespace flashmetric
