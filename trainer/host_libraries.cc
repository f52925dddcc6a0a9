#include "trainer/host_libraries.h"

#include <cstdlib>

namespace plural::trainer {

void LimitLibraryCaches() {
  // A pass of a decoder multiplies some 12 shapes forward and as many back, and its head a few more.
  constexpr const char* kShapes = "32";
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", kShapes, /*overwrite=*/0);
  setenv("LRU_CACHE_CAPACITY", kShapes,
         /*overwrite=*/0);  // of ideep, which stands between libtorch and oneDNN
}

}  // namespace plural::trainer
