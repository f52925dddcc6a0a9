#include "trainer/commands/host_libraries.h"

#include <malloc.h>

#include <cstdlib>

namespace plural::trainer {

void LimitLibraryCaches() {
  // A pass of a decoder multiplies some 12 shapes forward and as many back, and its head a few more.
  constexpr const char* kShapes = "32";
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", kShapes, /*overwrite=*/0);
  setenv("LRU_CACHE_CAPACITY", kShapes,
         /*overwrite=*/0);  // of ideep, which stands between libtorch and oneDNN
}

void LetGpuMemoryGrow() {
  // The older name, which libtorch reads too, may be the user's.
  if (std::getenv("PYTORCH_CUDA_ALLOC_CONF") != nullptr) return;
  setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True", /*overwrite=*/0);
}

void KeepFreedMemory() {
#ifdef __GLIBC__
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return;
  constexpr int kBytes = 1 << 30;  // of one tensor, and of free memory at the end of the heap
  mallopt(M_MMAP_THRESHOLD, kBytes);
  mallopt(M_TRIM_THRESHOLD, kBytes);
#endif
}

}  // namespace plural::trainer
