#include "dist/shards.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>

#include "dist/slices.h"

namespace plural::dist {

Shards::Shards(const FlatParameters& parameters, const Settings& settings)
    : settings_(settings), buckets_(CutBuckets(parameters, settings.bucket_bytes)) {
  std::vector<std::int64_t> kept(static_cast<std::size_t>(settings.ranks));
  for (std::size_t i = buckets_.size(); i-- > 0;) {
    for (int rank = 0; rank < settings.ranks; ++rank) {
      const Slice slice = SliceOf(buckets_[i].size, settings.ranks, rank);
      if (slice.size == 0) continue;
      std::int64_t& begin = kept[static_cast<std::size_t>(rank)];
      pieces_.push_back({buckets_[i].offset + slice.offset, slice.size, rank, begin});
      begin += slice.size;
      if (rank == settings.rank) own_.push_back(pieces_.back());
    }
  }
  own_elements_ = kept[static_cast<std::size_t>(settings.rank)];
}

std::vector<Shards::Piece> Shards::Within(std::int64_t offset, std::int64_t size) const {
  std::vector<Piece> found;
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                [](std::int64_t at, const Piece& other) { return at < other.offset; });
  if (piece != pieces_.begin()) --piece;
  for (; piece != pieces_.end() && piece->offset < offset + size; ++piece) {
    const std::int64_t begin = std::max(offset, piece->offset);
    const std::int64_t end = std::min(offset + size, piece->offset + piece->size);
    if (begin < end) {
      found.push_back({begin, end - begin, piece->rank, piece->kept + begin - piece->offset});
    }
  }
  return found;
}

void Shards::AllGather(const at::Tensor& flat, Collectives& collectives) const {
  std::vector<std::unique_ptr<Pending>> pending;
  pending.reserve(buckets_.size());
  for (const Bucket& bucket : buckets_) {
    pending.push_back(collectives.AllGatherSlices(flat.narrow(0, bucket.offset, bucket.size)));
  }
  for (const auto& gathering : pending) gathering->Wait();
}

}  // namespace plural::dist
