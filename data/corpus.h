// Reader of the HDF5 corpus (docs/corpus-format.md).
//
// Owns: the open file, the validation of its content, reading of single groups. Does not own:
// order, labels or threads. Thread rule: one thread at a time; the loader's thread after start-up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "data/alignment_info.h"
#include "data/group.h"

namespace plural::data {

struct CorpusInfo {
  std::int64_t groups = 0;
  std::int64_t responses = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t response_tokens = 0;
  int possibilities = 0;  // M: tails 1..M exist; 0 = none
  std::int64_t vocab_size = 0;
  std::int64_t largest_token = 0;        // largest id that may be used; vocab_size - 1 if unstated
  std::vector<std::int64_t> end_tokens;  // of an answer, the trained one first; may be empty
  std::string source_format;             // dialogue | targets | chat | text
  std::string tokenizer_sha256;
  std::string tokenizer_name;  // file name, for display
  std::string template_name;
  std::string template_json;  // the whole template, so that generation uses the same one
  std::string sha256;         // of the file, from the sidecar ("" without one)
  AlignmentInfo alignment;
};

struct CorpusLimits {
  std::int64_t max_elements = std::int64_t{1} << 36;  // in any one dataset
  // Read the whole file once and compare with its sidecar. One rank of a job does it.
  bool verify_sidecar = true;
  // Read every token once, in blocks, so that a bad one is found before a run starts. One rank does it.
  bool scan_tokens = false;
};

class Corpus {
 public:
  // Errors: MissingInput when absent or unreadable; DataError, naming file, dataset, what was found
  // and what is allowed, for everything else.
  explicit Corpus(const std::filesystem::path& path, const CorpusLimits& limits = {});
  ~Corpus();
  Corpus(Corpus&&) noexcept;
  Corpus& operator=(Corpus&&) noexcept;

  const std::filesystem::path& Path() const;
  const CorpusInfo& Info() const;

  // Reads one group whole and checks it: token ids within [0, vocab_size), finite weights >= 0, affinities
  // within [-1, 1].
  Group Read(std::int64_t group);

  // Lengths known without reading tokens, for plans and costs.
  struct GroupLengths {
    std::int64_t prompt = 0;
    std::int64_t longest_tail = 0;
    std::vector<std::int32_t> responses;  // tokens of each
  };
  GroupLengths Lengths(std::int64_t group) const;

  // Tokens of the longest sequence (prompt + longest tail + longest response) of the corpus, or of its first
  // `groups` groups, and its group.
  struct Longest {
    std::int64_t tokens = 0;
    std::int64_t group = 0;
  };
  Longest LongestSequence(std::int64_t groups = std::numeric_limits<std::int64_t>::max()) const;

  // The bytes that a token id stands for (the id-to-bytes table), and those of a whole sequence. A
  // model may have more rows than its tokenizer has ids; such ids stand for no bytes.
  const std::string& TokenBytes(Token token) const;
  std::string Decode(const std::vector<Token>& tokens) const;
  // The token that stands for `bytes`; -1 when there is none.
  std::int64_t IdOf(const std::string& bytes) const;

  // Changes when the file is replaced or touched: "size:mtime_ns".
  std::string Fingerprint() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plural::data
