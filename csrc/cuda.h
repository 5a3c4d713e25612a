// SPDX-License-Identifier: BSD-3-Clause
// What a GPU provides: entry points of csrc/cuda, or, in a build without CUDA, of csrc/no_cuda.
#pragma once

#include <string>

#include "names.h"

namespace flashmetric {

// Where the pointers of a problem lead, and the stream that its work goes to.
struct Device {
  int index = 0;
  void* stream = nullptr;
};

// Names resolved, then those of namespace cuda.
Status cuda_mine(MineProblem& problem, Device device);
Status cuda_triplet(TripletProblem& problem, Device device);
Status cuda_mined_triplet(MineProblem& mined, TripletProblem& loss, Device device);
Status cuda_list_triplets(ListProblem& problem, Device device);
Status cuda_listed_triplet(ListProblem& lists, TripletProblem& loss, Device device);
Status cuda_dense(DenseProblem& problem, Device device);
Status cuda_paired(PairedProblem& problem, Device device);
Status cuda_pairwise(PairwiseProblem& problem, Device device);
Status cuda_pairwise_backward(PairwiseProblem& problem, Device device);

namespace cuda {

// Each runs the problem, or without a workspace says what it needs, like those of flashmetric.h.
// Nothing is allocated, nothing waits for the device.
Status mine(MineProblem& problem, Names names, Device device);
Status triplet(TripletProblem& problem, Names names, Device device);
// The loss of the triplets that are mined, of all rows of `mined`, on one workspace: `loss`'s.
Status mined_triplet(MineProblem& mined, TripletProblem& loss, Names names, Device device);
Status list_triplets(ListProblem& problem, Names names, Device device);
// The loss of all that is listed, without the list; margins, weights and cotangents are by anchor.
Status listed_triplet(ListProblem& lists, TripletProblem& loss, Names names, Device device);
Status dense(DenseProblem& problem, Names names, Device device);
Status paired(PairedProblem& problem, Names names, Device device);
Status pairwise(PairwiseProblem& problem, Names names, Device device);
Status pairwise_backward(PairwiseProblem& problem, Names names, Device device);

// Which main loop ranks on a GPU of that compute capability: "wgmma", "mma", or "fma"; "" without
// CUDA. Or why FLASHMETRIC_CUDA_PATH cannot be honoured there.
Status path(int major, int minor, std::string& name);

// Calls so far.
struct Counters {
  int64_t mine, list_triplets, triplet, dense, paired, pairwise, pairwise_backward, tiles, keys;
};
extern Counters call_counters;

}  // namespace cuda
}  // namespace flashmetric
