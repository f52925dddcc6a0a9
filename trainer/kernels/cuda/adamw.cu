// AdamW on a GPU: the entry point. The work of a block is in adamw.h.
#include "trainer/kernels/cuda/adamw.h"
#include "trainer/kernels/cuda/rows_launch.h"

namespace plural::trainer {

extern "C" int plural_adamw(const AdamWArguments& arguments, void* stream) {
  return gpu::StartAdamW(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
