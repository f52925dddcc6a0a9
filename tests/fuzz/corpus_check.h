// What holds for any corpus file, right or wrong: it is refused in one line, or all that it gives fits
// together; and no object of the HDF5 library stays open.
#pragma once

#include <hdf5.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/error.h"
#include "tests/fuzz/require.h"

// The HDF5 library loses memory of its own when it refuses damaged metadata; what the reader could leak is
// identifiers, and those are counted.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace plural::fuzz {

inline void RequireInVocabulary(const std::vector<data::Token>& tokens, const data::Corpus& corpus) {
  for (const data::Token token : tokens) {
    Require(token >= 0 && token < corpus.Info().vocab_size, "a token outside the vocabulary");
  }
  corpus.Decode(tokens);
}

inline void ReadGroup(data::Corpus& corpus, std::int64_t index) {
  const data::Group group = corpus.Read(index);
  const data::Corpus::GroupLengths lengths = corpus.Lengths(index);
  RequireInVocabulary(group.prompt_tokens, corpus);
  for (const auto& tail : group.tails) RequireInVocabulary(tail, corpus);
  Require(group.Possibilities() == corpus.Info().possibilities, "a group of other possibilities");
  Require(std::ssize(group.prompt_tokens) == lengths.prompt, "a prompt of another length than Lengths gives");
  Require(group.responses.size() == lengths.responses.size(), "other responses than Lengths gives");
  for (std::size_t r = 0; r < group.responses.size(); ++r) {
    const data::Response& response = group.responses[r];
    RequireInVocabulary(response.tokens, corpus);
    Require(std::ssize(response.tokens) == lengths.responses[r] &&
                response.masks.size() == response.tokens.size(),
            "a response of other lengths than Lengths gives");
    Require(std::isfinite(response.weight) && response.weight >= 0.0, "a weight that is no weight");
    for (const float affinity : response.affinity) {
      Require(affinity >= -1.0F && affinity <= 1.0F, "an affinity outside [-1, 1]");
    }
  }
}

inline void ReadCorpus(const std::filesystem::path& path) {
  try {
    data::Corpus corpus(path, {.scan_tokens = true});
    for (std::int64_t group = 0; group < corpus.Info().groups; ++group) ReadGroup(corpus, group);
    corpus.LongestSequence();
  } catch (const data::DataError& error) {
    RequireOneLine(error.what());
  }
  Require(H5Fget_obj_count(static_cast<hid_t>(H5F_OBJ_ALL), H5F_OBJ_ALL) == 0, "an HDF5 object stays open");
}

}  // namespace plural::fuzz
