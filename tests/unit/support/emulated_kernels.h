// The module of CUDA kernels, emulated on the host: the same entry points with pointers to the host's memory.
//
// Owns: the entry points. Does not own: what a block does (emulated_block.h). Thread rule: any thread.
#pragma once

#include "tests/unit/support/emulated_block.h"
#include "trainer/kernels/cuda/adamw.h"
#include "trainer/kernels/cuda/drop_sites.h"
#include "trainer/kernels/cuda/joined_rows.h"
#include "trainer/kernels/cuda/logit_rows.h"
#include "trainer/kernels/cuda/path_attention.h"
#include "trainer/kernels/cuda/pointwise.h"
#include "trainer/kernels/cuda/sample_rows.h"
#include "trainer/kernels/cuda/tree_attention_start.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer::testing {

inline CudaKernels EmulatedKernels() {
  CudaKernels kernels;
  kernels.tree_attention_serves = [](KernelType type, int dim) {
    return TreeWidthOf(dim) != 0 && type != KernelType::kFp64 ? 1 : 0;
  };
  kernels.tree_attention = [](const TreeAttentionArguments& arguments, void*) {
    return gpu::StartTreeAttention(arguments, gpu::EmulatedLaunch{});
  };
  kernels.tree_attention_backward = [](const TreeAttentionArguments& arguments, void*) {
    return gpu::StartTreeAttentionBackward(arguments, gpu::EmulatedLaunch{});
  };
  kernels.rms_norm = [](const RmsNormArguments& arguments, void*) {
    return gpu::StartRmsNorm(arguments, gpu::EmulatedLaunch{});
  };
  kernels.rms_norm_backward = [](const RmsNormBackwardArguments& arguments, void*) {
    return gpu::StartRmsNormBackward(arguments, gpu::EmulatedLaunch{});
  };
  kernels.gate = [](const GateArguments& arguments, void*) {
    return gpu::StartGate(arguments, gpu::EmulatedLaunch{});
  };
  kernels.rotate = [](const RotateArguments& arguments, void*) {
    return gpu::StartRotate(arguments, gpu::EmulatedLaunch{});
  };
  kernels.gate_joined = [](const GateJoinedArguments& arguments, void*) {
    return gpu::StartGateJoined(arguments, gpu::EmulatedLaunch{});
  };
  kernels.rotate_joined = [](const RotateJoinedArguments& arguments, void*) {
    return gpu::StartRotateJoined(arguments, gpu::EmulatedLaunch{});
  };
  kernels.row_statistics = [](const RowStatisticsArguments& arguments, void*) {
    return gpu::StartRowStatistics(arguments, gpu::EmulatedLaunch{});
  };
  kernels.row_gradient = [](const RowGradientArguments& arguments, void*) {
    return gpu::StartRowGradient(arguments, gpu::EmulatedLaunch{});
  };
  kernels.path_attention = [](const PathAttentionArguments& arguments, void*) {
    return gpu::StartPathAttention(arguments, gpu::EmulatedLaunch{});
  };
  kernels.sample_rows = [](const SampleRowsArguments& arguments, void*) {
    return gpu::StartSampleRows(arguments, gpu::EmulatedLaunch{});
  };
  kernels.drop_sites = [](const DropSitesArguments& arguments, void*) {
    return gpu::StartDropSites(arguments, gpu::EmulatedLaunch{});
  };
  kernels.adamw = [](const AdamWArguments& arguments, void*) {
    return gpu::StartAdamW(arguments, gpu::EmulatedLaunch{});
  };
  return kernels;
}

}  // namespace plural::trainer::testing
