// Attention over a cache of keys and values on a GPU: the entry point. The work of a block is in
// path_attention.h.
#include "trainer/kernels/cuda/path_attention.h"
#include "trainer/kernels/cuda/rows_launch.h"

namespace plural::trainer {

extern "C" int plural_path_attention(const PathAttentionArguments& arguments, void* stream) {
  return gpu::StartPathAttention(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
