// Launches of kernels with a fixed size of shared memory. For nvcc only.
//
// Owns: the launch. Does not own: on how many blocks a kernel runs (the Start functions beside each kernel's
// source). Thread rule: any thread.
#pragma once

#include "trainer/kernels/cuda/block.h"

namespace plural::trainer::gpu {

// Arguments stay where the launch put them, also those that are read by an index.
template <class Program, class Arguments>
__global__ void __launch_bounds__(Program::kThreads) RunRows(const __grid_constant__ Arguments a) {
  __shared__ __align__(16) char shared[Program::kBytes];
  typename Program::Registers registers;
  DeviceBlock<typename Program::Registers> block(registers, shared);
  Program::Run(block, a, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
}

struct LaunchRows {
  cudaStream_t stream;

  template <class Program, class Arguments>
  int Start(int x, int y, const Arguments& a) const {
    const dim3 blocks(static_cast<unsigned>(x), static_cast<unsigned>(y));
    RunRows<Program, Arguments><<<blocks, Program::kThreads, 0, stream>>>(a);
    return cudaGetLastError();
  }
};

}  // namespace plural::trainer::gpu
