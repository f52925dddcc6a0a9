// Gradient sync: sums the flat gradient over ranks, bucket by bucket, while backward runs.
//
// Owns: the hooks that run when a gradient is complete, the order of what is sent. Does not own: the buffers
// (flat_parameters.h), where buckets are cut (buckets.h), the transport (collectives.h), averaging: every
// micro-loss already carries the step's global denominator, so the sum is the gradient. Thread rule: main
// thread; autograd on the CPU runs hooks on the thread that calls backward.
#pragma once

#include <cstdint>
#include <memory>

#include "dist/collectives.h"
#include "dist/flat_parameters.h"
#include "dist/shards.h"

namespace plural::dist {

class GradientSync {
 public:
  // The whole sum comes to every rank, in the buckets of CutBuckets.
  GradientSync(FlatParameters& parameters, Collectives& collectives, std::int64_t bucket_bytes = 25 << 20);
  // A rank needs that part of the sum which it keeps of `shards`, and may get no more
  // (Collectives::ScattersSums).
  GradientSync(FlatParameters& parameters, Collectives& collectives, const Shards& shards);
  ~GradientSync();

  // Call before the backward of the step's last pass on this rank: from here a bucket is sent as soon
  // as its last gradient has arrived, always in bucket order. Not needed on a rank without passes.
  void ArmLastBackward();
  // Takes that back after a backward that failed, on this rank alone; false where a bucket has been sent,
  // whose sum can no longer be made anew.
  bool Disarm();
  // Sends the remaining buckets and waits for all. Every rank calls it once per step. COLLECTIVE.
  void Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plural::dist
