#include "trainer/commands/gpu_arithmetic.h"

#include <ATen/Context.h>

#include <cstdlib>

namespace plural::trainer {

void SetGpuArithmetic(bool deterministic) {
  at::Context& context = at::globalContext();
  // fp32 is fp32, also where the environment asks for TF32 (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE).
  context.setAllowTF32CuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false, /*allow_splitk=*/true);
  if (!deterministic) return;
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  // Every new tensor would be filled first, against code that reads what it has not written.
  context.setDeterministicFillUninitializedMemory(false);
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // read with the first product
}

}  // namespace plural::trainer
