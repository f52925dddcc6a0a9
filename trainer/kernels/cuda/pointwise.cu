// Norm, gate and rotation on a GPU: the entry points. The work of a block is in pointwise.h and
// joined_rows.h.
#include "trainer/kernels/cuda/joined_rows.h"
#include "trainer/kernels/cuda/module.h"
#include "trainer/kernels/cuda/pointwise.h"
#include "trainer/kernels/cuda/rows_launch.h"

namespace plural::trainer {

extern "C" int plural_rms_norm(const RmsNormArguments& arguments, void* stream) {
  return gpu::StartRmsNorm(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_rms_norm_backward(const RmsNormBackwardArguments& arguments, void* stream) {
  return gpu::StartRmsNormBackward(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_gate(const GateArguments& arguments, void* stream) {
  return gpu::StartGate(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_rotate(const RotateArguments& arguments, void* stream) {
  return gpu::StartRotate(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_gate_joined(const GateJoinedArguments& arguments, void* stream) {
  return gpu::StartGateJoined(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_rotate_joined(const RotateJoinedArguments& arguments, void* stream) {
  return gpu::StartRotateJoined(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
