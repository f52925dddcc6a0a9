// Shards: which rank keeps which elements of the flat buffers.
//
// Owns: the cut of every bucket into a slice for each rank, where a rank's elements lie in a buffer of its
// own, and how values come back to all. Does not own: what is kept (the optimizer's moments), the buffers.
// Thread rule: one thread.
//
// Buckets, and not the whole buffer, are cut, so that a bucket's gradients can be sent while backward goes
// on.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "dist/buckets.h"
#include "dist/collectives.h"
#include "dist/flat_parameters.h"

namespace plural::dist {

class Shards {
 public:
  struct Settings {
    int rank = 0, ranks = 1;
    std::int64_t bucket_bytes = 25 << 20;  // the same on all ranks
  };
  struct Piece {
    std::int64_t offset = 0, size = 0;  // elements of the flat buffer
    int rank = 0;                       // that keeps them
    std::int64_t kept = 0;              // where they begin among those that this rank keeps
  };

  Shards(const FlatParameters& parameters, const Settings& settings);

  int Rank() const { return settings_.rank; }
  const std::vector<Bucket>& Buckets() const { return buckets_; }
  // The pieces of this rank, and their number of elements, padding included.
  const std::vector<Piece>& Own() const { return own_; }
  std::int64_t OwnElements() const { return own_elements_; }
  // Elements [offset, offset + size) of all ranks, ascending, without holes.
  std::vector<Piece> Within(std::int64_t offset, std::int64_t size) const;

  // Every rank has changed its own elements of `flat`; all get all of them. COLLECTIVE.
  void AllGather(const at::Tensor& flat, Collectives& collectives) const;

 private:
  Settings settings_;
  std::vector<Bucket> buckets_;  // in the order in which they are sent
  std::vector<Piece> pieces_;    // of all ranks, ascending
  std::vector<Piece> own_;
  std::int64_t own_elements_ = 0;
};

}  // namespace plural::dist
