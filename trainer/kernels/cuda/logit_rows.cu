// Rows of logits on a GPU: the entry points. The work of a block is in logit_rows.h.
#include "trainer/kernels/cuda/logit_rows.h"
#include "trainer/kernels/cuda/rows_launch.h"

namespace plural::trainer {

extern "C" int plural_row_statistics(const RowStatisticsArguments& arguments, void* stream) {
  return gpu::StartRowStatistics(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}
extern "C" int plural_row_gradient(const RowGradientArguments& arguments, void* stream) {
  return gpu::StartRowGradient(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
