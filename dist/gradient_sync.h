// Gradient sync: sums the flat gradient over ranks, bucket by bucket, while backward runs.
//
// Owns: the buckets, the hooks that run when a gradient is complete. Does not own: the buffers
// (flat_parameters.h), the transport (collectives.h), averaging: every micro-loss already carries
// the step's global denominator, so the sum is the gradient. Thread rule: main thread; autograd on
// the CPU runs hooks on the thread that calls backward.
#pragma once

#include <cstdint>
#include <memory>

#include "dist/collectives.h"
#include "dist/flat_parameters.h"

namespace plural::dist {

class GradientSync {
 public:
  // Buckets hold whole parameters, in reverse order (the order in which backward finishes them), and
  // are cut at about `bucket_bytes`.
  GradientSync(FlatParameters& parameters, Collectives& collectives, std::int64_t bucket_bytes = 25 << 20);
  ~GradientSync();

  // Call before the backward of the step's last pass on this rank: from here a bucket is sent as soon
  // as its last gradient has arrived, always in bucket order. Not needed on a rank without passes.
  void ArmLastBackward();
  // Sends the remaining buckets and waits for all. Every rank calls it once per step. COLLECTIVE.
  void Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plural::dist
