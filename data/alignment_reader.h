// The alignment part of a corpus (docs/corpus-format.md): what its numbers mean, and affinities.
//
// Owns: the validation of that part. Does not own: the rest of the corpus (corpus.h), the
// assignment made from affinities (possibilities.h). Thread rule: as the file's. Internal to data/.
#pragma once

#include <cstdint>
#include <vector>

#include "data/alignment_info.h"
#include "data/group.h"
#include "data/hdf5_reader.h"

namespace plural::data {

class AlignmentReader {
 public:
  static bool IsIn(const Hdf5File& file) { return file.HasAttribute("alignment_possibilities"); }

  // `possibilities` and `responses`: those of the whole corpus. Errors: DataError naming the
  // dataset or attribute that is missing, of another shape, or not finite.
  AlignmentReader(const Hdf5File& file, int possibilities, std::int64_t responses, std::int64_t max_elements);

  const AlignmentInfo& Info() const { return info_; }

  // Fills in the affinities of consecutive responses; `first`: index of the first one in the
  // corpus. Errors: DataError when one is outside [-1, 1].
  void Read(std::int64_t first, std::vector<Response>& responses) const;

 private:
  void ReadCentres(const Hdf5File& file);
  void ReadKinds(const Hdf5File& file);

  AlignmentInfo info_;
  Hdf5Dataset<float> affinities_;  // [responses, M]
};

}  // namespace plural::data
