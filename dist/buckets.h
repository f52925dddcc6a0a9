// Buckets: runs of whole parameters in the flat buffers, each sent as one.
//
// Owns: where they are cut. Does not own: when they are sent (gradient_sync.h), who keeps what of them
// (shards.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "dist/flat_parameters.h"

namespace plural::dist {

struct Bucket {
  std::int64_t offset = 0, size = 0;  // elements, padding included
  std::int64_t parameters = 0;
};

// In reverse order, in which backward finishes parameters, cut at about `bucket_bytes`. Errors:
// std::invalid_argument for less than 1 byte.
std::vector<Bucket> CutBuckets(const FlatParameters& parameters, std::int64_t bucket_bytes);

}  // namespace plural::dist
