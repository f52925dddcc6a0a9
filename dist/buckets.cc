#include "dist/buckets.h"

#include <ATen/core/Tensor.h>

#include <stdexcept>
#include <string>

namespace plural::dist {

std::vector<Bucket> CutBuckets(const FlatParameters& parameters, std::int64_t bucket_bytes) {
  if (bucket_bytes < 1) {
    throw std::invalid_argument("bucket_bytes is " + std::to_string(bucket_bytes) + "; allowed: 1 or more");
  }
  const auto& spans = parameters.Spans();
  const auto element_bytes = static_cast<std::int64_t>(parameters.Gradients().element_size());
  std::vector<Bucket> buckets;
  std::int64_t end = parameters.Gradients().numel(), count = 0;
  for (std::size_t i = spans.size(); i-- > 0;) {
    ++count;
    const std::int64_t elements = end - spans[i].offset;
    if (i == 0 || elements * element_bytes >= bucket_bytes) {
      buckets.push_back({spans[i].offset, elements, count});
      end = spans[i].offset;
      count = 0;
    }
  }
  return buckets;
}

}  // namespace plural::dist
