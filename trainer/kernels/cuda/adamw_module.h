// The part of the module's interface (module.h) that is about the optimizer.
//
// Owns: the entry points' names and types. Does not own: the update (adamw.h), its use (ops/adamw_cuda.h).
// Thread rule: any thread.
#pragma once

#include <cstdint>

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

// The scalars of one update of AdamW, in the precision of the buffer.
template <typename T>
struct AdamWScalars {
  T gradient_scale, decay, one_minus_beta1, beta2, one_minus_beta2, correction2_sqrt, eps, step_size;
};

// As the CPU's loop of trainer/state/optimizer.cc, to the bit; fp32 or fp64. Device pointers.
struct AdamWArguments {
  void* values;
  const void* gradients;
  void *first_moment, *second_moment;
  std::int64_t count;
  AdamWScalars<double> scalars;  // rounded to the type by the kernel
  KernelType type;
};
inline constexpr char kAdamWName[] = "plural_adamw";
using AdamWOnCuda = int(const AdamWArguments& arguments, void* stream);

}  // namespace plural::trainer
