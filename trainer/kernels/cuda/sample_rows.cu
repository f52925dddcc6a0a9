// Tokens drawn from rows of logits on a GPU: the entry point. The work of a block is in sample_rows.h.
#include "trainer/kernels/cuda/rows_launch.h"
#include "trainer/kernels/cuda/sample_rows.h"

namespace plural::trainer {

extern "C" int plural_sample_rows(const SampleRowsArguments& arguments, void* stream) {
  return gpu::StartSampleRows(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
