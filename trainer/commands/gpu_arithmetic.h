// How the libraries of a GPU compute.
//
// Owns: what must be set before they are first used. Does not own: caches of the CPU's libraries and memory
// (host_libraries.h). Thread rule: main thread, before the first tensor on a GPU.
#pragma once

namespace plural::trainer {

// cuBLAS sums the parts of a bf16 product in fp32, also where it divides the sum among blocks; its default is
// bf16. fp32 products are left at libtorch's default, fp32 without TF32. `deterministic`: operators whose
// order of summation depends on the order in which blocks end (attention's backward, index_add) take a slower
// way of one order, and cuBLAS a workspace of its own per stream.
void SetGpuArithmetic(bool deterministic);

}  // namespace plural::trainer
