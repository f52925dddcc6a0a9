#include "data/corpus.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>

#include "data/alignment_reader.h"
#include "data/error.h"
#include "data/hdf5_reader.h"
#include "data/sha256.h"

namespace plural::data {
namespace {

constexpr std::int64_t kFormatVersion = 1;
constexpr char kMaskModes[] = "content_first,all_first,repo_compat";
constexpr std::uint8_t kKnownMaskBits = 0b111;  // one per mask mode
constexpr std::int64_t kMaxPossibilities = 10000;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 24;
constexpr std::int64_t kMaxVocabularyBytes = std::int64_t{1} << 28;
constexpr std::int64_t kMaxTemplateBytes = std::int64_t{1} << 24;
constexpr std::int64_t kMaxGroupTokens = std::int64_t{1} << 24;  // of all its sequences' parts together
constexpr std::int64_t kMaxIdBytes = 65536;

using Offsets = std::vector<std::int64_t>;

bool IsSha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// An info with `sha256` as the sidecar states it, "" without a sidecar. With `verify`, the file's
// hash must equal it.
CorpusInfo InfoOfSidecar(const std::filesystem::path& path, bool verify) {
  const std::filesystem::path sidecar = path.string() + ".sha256";
  CorpusInfo info;
  if (!std::filesystem::exists(sidecar)) return info;
  std::ifstream stream(sidecar, std::ios::binary);
  if (!stream) throw MissingInput(sidecar.string() + ": cannot be read: " + std::strerror(errno));
  std::string stated(64, '\0');
  stream.read(stated.data(), 64);
  if (stream.gcount() != 64 || !IsSha256(stated) || stream.get() != ' ') {
    throw DataError(sidecar.string() +
                    ": does not begin with a SHA-256 of 64 hex digits and a blank; write it with "
                    "sha256sum, or delete it to go without");
  }
  if (verify) {
    const std::string found = Sha256OfFile(path);
    if (found != stated) {
      throw DataError(path.string() + ": has SHA-256 " + found + " but " + sidecar.filename().string() +
                      " states " + stated + "; the file was damaged or replaced, prepare or copy it again");
    }
  }
  info.sha256 = stated;
  return info;
}

// Reads an offsets dataset of `size` elements (any number >= 1 when negative) that index the `end`
// elements of dataset `indexed`.
Offsets ReadOffsets(const Hdf5Dataset<std::int64_t>& dataset, std::int64_t size, std::int64_t end,
                    const std::string& indexed) {
  if (size >= 0 ? dataset.Size() != size : dataset.Size() < 1) {
    throw DataError(dataset.Where() + " has " + std::to_string(dataset.Size()) + " elements, " +
                    (size >= 0 ? std::to_string(size) + " are needed" : "at least 1 is needed"));
  }
  // The last element first: most wrong files fail here, before their offsets take memory.
  const std::int64_t last = dataset.Read(dataset.Size() - 1, dataset.Size()).front();
  if (last != end) {
    throw DataError(dataset.Where() + " ends at " + std::to_string(last) + " but '" + indexed + "' has " +
                    std::to_string(end) + " elements; both must be equal");
  }
  Offsets offsets = dataset.ReadAll();
  if (offsets.front() != 0) {
    throw DataError(dataset.Where() + " starts at " + std::to_string(offsets.front()) + ", 0 is needed");
  }
  const auto decrease = std::adjacent_find(offsets.begin(), offsets.end(), std::greater<>());
  if (decrease != offsets.end()) {
    throw DataError(dataset.Where() + " decreases from " + std::to_string(decrease[0]) + " to " +
                    std::to_string(decrease[1]) + " at element " +
                    std::to_string(decrease - offsets.begin() + 1) + "; offsets must not decrease");
  }
  return offsets;
}

}  // namespace

struct Corpus::Impl {
  // The hash comes first: a file that fails it never reaches the HDF5 library.
  Impl(const std::filesystem::path& corpus_path, const CorpusLimits& limits)
      : path(RequireReadableFile(corpus_path)), info(InfoOfSidecar(path, limits.verify_sidecar)), file(path) {
    ReadAttributes();
    OpenGroups(limits.max_elements);
    ReadVocabulary();
    if (AlignmentReader::IsIn(file)) {
      alignment.emplace(file, info.possibilities, info.responses, limits.max_elements);
      info.alignment = alignment->Info();
    }
    if (limits.scan_tokens) ScanTokens();
  }

  void ReadAttributes();
  void ReadTokens(const std::string& where);
  void OpenGroups(std::int64_t max_elements);
  void ReadVocabulary();
  void ScanTokens() const;
  // `tokens` were read from `dataset` at `begin`; group_of(element) is the group of a wrong one.
  template <class GroupOf>
  void RequireVocabulary(const Hdf5Dataset<Token>& dataset, const std::vector<Token>& tokens,
                         std::int64_t begin, GroupOf group_of) const;

  std::filesystem::path path;
  CorpusInfo info;
  Hdf5File file;
  Hdf5Dataset<Token> prompt_tokens;
  Hdf5Dataset<Token> tail_tokens;
  Hdf5Dataset<Token> response_tokens;
  Hdf5Dataset<std::uint8_t> response_masks;
  Hdf5Dataset<std::uint8_t> id_bytes;
  std::optional<AlignmentReader> alignment;
  Offsets prompt_offsets;
  Offsets tail_offsets;      // row g * (M + 1) + k
  Offsets response_offsets;  // of all responses of the corpus
  Offsets group_responses;   // of the groups, into the responses
  Offsets id_offsets;
  std::vector<double> response_weights;
  std::vector<std::string> vocabulary;
};

void Corpus::Impl::ReadAttributes() {
  const std::string where = file.Name() + ": attribute ";
  if (!file.HasAttribute("format") || file.StringAttribute("format") != "plural-corpus") {
    throw DataError(file.Name() + ": an HDF5 file but not a corpus (attribute 'format' is not " +
                    "'plural-corpus'); make one with `plural prepare`");
  }
  const std::int64_t version = file.IntegerAttribute("format_version");
  if (version != kFormatVersion) {
    throw DataError(where + "'format_version' is " + std::to_string(version) + ", this program reads " +
                    std::to_string(kFormatVersion) + "; prepare the corpus again");
  }
  if (!file.HasAttribute("complete") || file.IntegerAttribute("complete") != 1) {
    throw DataError(where + "'complete' is not 1: its writer did not finish; prepare the corpus again");
  }
  const std::int64_t possibilities = file.IntegerAttribute("possibilities");
  if (possibilities < 0 || possibilities > kMaxPossibilities) {
    throw DataError(where + "'possibilities' is " + std::to_string(possibilities) + ", 0 to " +
                    std::to_string(kMaxPossibilities) + " are allowed");
  }
  info.possibilities = static_cast<int>(possibilities);
  info.vocab_size = file.IntegerAttribute("vocab_size");
  if (info.vocab_size < 1 || info.vocab_size > kMaxVocabulary) {
    throw DataError(where + "'vocab_size' is " + std::to_string(info.vocab_size) + ", 1 to " +
                    std::to_string(kMaxVocabulary) + " are allowed");
  }
  ReadTokens(where);
  info.source_format = file.StringAttribute("source_format");
  const auto formats = {"dialogue", "targets", "chat", "text"};
  if (std::find(formats.begin(), formats.end(), info.source_format) == formats.end()) {
    throw DataError(where + "'source_format' is " + Quoted(info.source_format) +
                    "; dialogue, targets, chat and text are allowed");
  }
  info.tokenizer_sha256 = file.StringAttribute("tokenizer_sha256");
  if (!IsSha256(info.tokenizer_sha256)) {
    throw DataError(where + "'tokenizer_sha256' is " + Quoted(info.tokenizer_sha256) +
                    ", 64 lower-case hex digits are needed");
  }
  info.tokenizer_name = file.StringAttribute("tokenizer_name");
  info.template_name = file.StringAttribute("template_name");
  const std::string mask_modes = file.StringAttribute("mask_modes");
  if (mask_modes != kMaskModes) {
    throw DataError(where + "'mask_modes' is " + Quoted(mask_modes) + ", '" + kMaskModes + "' is needed");
  }
}

// Corpora of older writers state the trained end token only, and no largest id.
void Corpus::Impl::ReadTokens(const std::string& where) {
  const auto require = [&](const char* name, std::int64_t id) {
    if (id >= 0 && id < info.vocab_size) return;
    throw DataError(where + "'" + name + "' holds id " + std::to_string(id) + ", 0 to " +
                    std::to_string(info.vocab_size - 1) + " are allowed");
  };
  info.largest_token = info.vocab_size - 1;
  if (file.HasAttribute("largest_token_id")) {
    info.largest_token = file.IntegerAttribute("largest_token_id");
    require("largest_token_id", info.largest_token);
  }
  std::vector<std::int64_t> ends;
  if (file.HasAttribute("end_token_ids")) {
    ends = file.IntegersAttribute("end_token_ids");
    for (const std::int64_t id : ends) require("end_token_ids", id);
  } else if (file.HasAttribute("eos_token_id")) {
    ends = {file.IntegerAttribute("eos_token_id")};
    std::erase_if(ends, [&](std::int64_t id) { return id < 0 || id >= info.vocab_size; });
  }
  info.end_tokens = std::move(ends);
}

void Corpus::Impl::OpenGroups(std::int64_t max_elements) {
  const auto open_offsets = [&](const char* name) { return file.Open<std::int64_t>(name, max_elements); };
  prompt_tokens = file.Open<Token>("prompt_tokens", max_elements);
  tail_tokens = file.Open<Token>("tail_tokens", max_elements);
  response_tokens = file.Open<Token>("response_tokens", max_elements);
  response_masks = file.Open<std::uint8_t>("response_masks", max_elements);
  id_bytes = file.Open<std::uint8_t>("id_bytes", max_elements);
  const auto weights = file.Open<double>("response_weights", max_elements);

  prompt_offsets = ReadOffsets(open_offsets("prompt_offsets"), -1, prompt_tokens.Size(), "prompt_tokens");
  const auto groups = static_cast<std::int64_t>(prompt_offsets.size()) - 1;
  if (groups == 0) throw DataError(file.Name() + ": has no groups; at least one is needed");
  tail_offsets = ReadOffsets(open_offsets("tail_offsets"), groups * (info.possibilities + 1) + 1,
                             tail_tokens.Size(), "tail_tokens");
  response_offsets = ReadOffsets(open_offsets("response_offsets"), weights.Size() + 1, response_tokens.Size(),
                                 "response_tokens");
  group_responses =
      ReadOffsets(open_offsets("group_responses"), groups + 1, weights.Size(), "response_weights");
  id_offsets = ReadOffsets(open_offsets("id_offsets"), groups + 1, id_bytes.Size(), "id_bytes");
  if (response_masks.Size() != response_tokens.Size()) {
    throw DataError(response_masks.Where() + " has " + std::to_string(response_masks.Size()) +
                    " elements, as many as response_tokens (" + std::to_string(response_tokens.Size()) +
                    ") are needed");
  }

  response_weights = weights.ReadAll();
  for (std::size_t i = 0; i < response_weights.size(); ++i) {
    if (!std::isfinite(response_weights[i]) || response_weights[i] < 0.0) {
      throw DataError(weights.Where() + " is " + std::to_string(response_weights[i]) + " at element " +
                      std::to_string(i) + ", finite numbers >= 0 are allowed");
    }
  }

  info.groups = groups;
  info.responses = weights.Size();
  info.prompt_tokens = prompt_tokens.Size();
  info.response_tokens = response_tokens.Size();
  const std::int64_t tails = info.possibilities + 1;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t tokens = prompt_offsets[g + 1] - prompt_offsets[g] + tail_offsets[(g + 1) * tails] -
                                tail_offsets[g * tails] + response_offsets[group_responses[g + 1]] -
                                response_offsets[group_responses[g]];
    if (tokens > kMaxGroupTokens) {
      throw DataError(file.Name() + ": group " + std::to_string(g) + " has " + std::to_string(tokens) +
                      " tokens, at most " + std::to_string(kMaxGroupTokens) + " are allowed in one group");
    }
    if (id_offsets[g + 1] - id_offsets[g] > kMaxIdBytes) {
      throw DataError(file.Name() + ": dataset 'id_offsets': the id of group " + std::to_string(g) + " has " +
                      std::to_string(id_offsets[g + 1] - id_offsets[g]) + " bytes, at most " +
                      std::to_string(kMaxIdBytes) + " are allowed");
    }
  }
}

void Corpus::Impl::ReadVocabulary() {
  const auto bytes_dataset = file.Open<std::uint8_t>("vocab_bytes", kMaxVocabularyBytes);
  const Offsets offsets = ReadOffsets(file.Open<std::int64_t>("vocab_offsets", kMaxVocabulary + 1),
                                      info.vocab_size + 1, bytes_dataset.Size(), "vocab_bytes");
  const std::vector<std::uint8_t> bytes = bytes_dataset.ReadAll();
  vocabulary.reserve(static_cast<std::size_t>(info.vocab_size));
  for (std::int64_t id = 0; id < info.vocab_size; ++id) {
    vocabulary.emplace_back(bytes.begin() + offsets[id], bytes.begin() + offsets[id + 1]);
  }
  const std::vector<std::uint8_t> text = file.Open<std::uint8_t>("template", kMaxTemplateBytes).ReadAll();
  info.template_json.assign(text.begin(), text.end());
}

void Corpus::Impl::ScanTokens() const {
  constexpr std::int64_t kBlock = std::int64_t{1} << 20;
  const auto scan = [this](const Hdf5Dataset<Token>& dataset, const auto& group_of) {
    for (std::int64_t begin = 0; begin < dataset.Size(); begin += kBlock) {
      RequireVocabulary(dataset, dataset.Read(begin, std::min(dataset.Size(), begin + kBlock)), begin,
                        group_of);
    }
  };
  // The last row that starts at or before an element holds it.
  const auto row_of = [](const Offsets& offsets, std::int64_t element) {
    return std::upper_bound(offsets.begin(), offsets.end(), element) - offsets.begin() - 1;
  };
  scan(prompt_tokens, [&](std::int64_t element) { return row_of(prompt_offsets, element); });
  scan(tail_tokens,
       [&](std::int64_t element) { return row_of(tail_offsets, element) / (info.possibilities + 1); });
  scan(response_tokens,
       [&](std::int64_t element) { return row_of(group_responses, row_of(response_offsets, element)); });
}

template <class GroupOf>
void Corpus::Impl::RequireVocabulary(const Hdf5Dataset<Token>& dataset, const std::vector<Token>& tokens,
                                     std::int64_t begin, GroupOf group_of) const {
  const auto largest_allowed = static_cast<std::uint32_t>(info.largest_token);
  // As unsigned a negative id is a large one: one comparison, which the compiler vectorises.
  std::uint32_t largest = 0;
  for (const Token token : tokens) largest = std::max(largest, static_cast<std::uint32_t>(token));
  if (largest <= largest_allowed) return;
  const auto wrong = std::find_if(tokens.begin(), tokens.end(), [&](Token token) {
    return static_cast<std::uint32_t>(token) > largest_allowed;
  });
  const std::int64_t element = begin + (wrong - tokens.begin());
  throw DataError(dataset.Where() + ": token id " + std::to_string(*wrong) + " at element " +
                  std::to_string(element) + " (group " + std::to_string(group_of(element)) + "), ids 0 to " +
                  std::to_string(info.largest_token) + " are allowed");
}

Corpus::Corpus(const std::filesystem::path& path, const CorpusLimits& limits)
    : impl_(std::make_unique<Impl>(path, limits)) {}
Corpus::~Corpus() = default;
Corpus::Corpus(Corpus&&) noexcept = default;
Corpus& Corpus::operator=(Corpus&&) noexcept = default;

const std::filesystem::path& Corpus::Path() const { return impl_->path; }
const CorpusInfo& Corpus::Info() const { return impl_->info; }

Group Corpus::Read(std::int64_t group) {
  Impl& c = *impl_;
  if (group < 0 || group >= c.info.groups) throw std::out_of_range("Corpus::Read: no such group");
  Group result;
  result.index = group;
  const auto id = c.id_bytes.Read(c.id_offsets[group], c.id_offsets[group + 1]);
  result.id.assign(id.begin(), id.end());

  const std::int64_t prompt_begin = c.prompt_offsets[group];
  result.prompt_tokens = c.prompt_tokens.Read(prompt_begin, c.prompt_offsets[group + 1]);
  const auto this_group = [group](std::int64_t) { return group; };
  c.RequireVocabulary(c.prompt_tokens, result.prompt_tokens, prompt_begin, this_group);

  // One read for all tails, one for all responses, one for their masks.
  const std::int64_t first_tail = group * (c.info.possibilities + 1);
  const std::int64_t end_tail = first_tail + c.info.possibilities + 1;
  const std::int64_t tail_begin = c.tail_offsets[first_tail];
  const auto tails = c.tail_tokens.Read(tail_begin, c.tail_offsets[end_tail]);
  c.RequireVocabulary(c.tail_tokens, tails, tail_begin, this_group);
  for (std::int64_t tail = first_tail; tail < end_tail; ++tail) {
    result.tails.emplace_back(tails.begin() + (c.tail_offsets[tail] - tail_begin),
                              tails.begin() + (c.tail_offsets[tail + 1] - tail_begin));
  }

  const std::int64_t first = c.group_responses[group];
  const std::int64_t end = c.group_responses[group + 1];
  const std::int64_t begin = c.response_offsets[first];
  const auto tokens = c.response_tokens.Read(begin, c.response_offsets[end]);
  c.RequireVocabulary(c.response_tokens, tokens, begin, this_group);
  const auto masks = c.response_masks.Read(begin, c.response_offsets[end]);
  const auto unknown = std::find_if(masks.begin(), masks.end(),
                                    [](std::uint8_t mask) { return (mask & ~kKnownMaskBits) != 0; });
  if (unknown != masks.end()) {
    throw DataError(c.response_masks.Where() + " is " + std::to_string(*unknown) + " at element " +
                    std::to_string(begin + (unknown - masks.begin())) + " (group " + std::to_string(group) +
                    "), 0 to " + std::to_string(kKnownMaskBits) + " are allowed");
  }
  for (std::int64_t r = first; r < end; ++r) {
    const std::int64_t from = c.response_offsets[r] - begin;
    const std::int64_t to = c.response_offsets[r + 1] - begin;
    result.responses.push_back({.tokens = {tokens.begin() + from, tokens.begin() + to},
                                .weight = c.response_weights[r],
                                .masks = {masks.begin() + from, masks.begin() + to}});
  }
  if (c.alignment) c.alignment->Read(first, result.responses);
  return result;
}

Corpus::GroupLengths Corpus::Lengths(std::int64_t group) const {
  const Impl& c = *impl_;
  if (group < 0 || group >= c.info.groups) throw std::out_of_range("Corpus::Lengths: no such group");
  GroupLengths lengths;
  lengths.prompt = c.prompt_offsets[group + 1] - c.prompt_offsets[group];
  const std::int64_t tails = c.info.possibilities + 1;
  for (std::int64_t tail = group * tails; tail < (group + 1) * tails; ++tail) {
    lengths.longest_tail = std::max(lengths.longest_tail, c.tail_offsets[tail + 1] - c.tail_offsets[tail]);
  }
  for (std::int64_t r = c.group_responses[group]; r < c.group_responses[group + 1]; ++r) {
    // This fits: a group has at most kMaxGroupTokens.
    lengths.responses.push_back(static_cast<std::int32_t>(c.response_offsets[r + 1] - c.response_offsets[r]));
  }
  return lengths;
}

Corpus::Longest Corpus::LongestSequence(std::int64_t groups) const {
  Longest longest;
  for (std::int64_t group = 0; group < std::min(groups, impl_->info.groups); ++group) {
    const GroupLengths lengths = Lengths(group);
    std::int64_t tokens = lengths.prompt + lengths.longest_tail;
    if (!lengths.responses.empty()) {
      tokens += *std::max_element(lengths.responses.begin(), lengths.responses.end());
    }
    if (tokens > longest.tokens) longest = {.tokens = tokens, .group = group};
  }
  return longest;
}

const std::string& Corpus::TokenBytes(Token token) const {
  static const std::string kNothing;
  if (token < 0) throw std::out_of_range("Corpus::TokenBytes: no such token");
  return token < impl_->info.vocab_size ? impl_->vocabulary[static_cast<std::size_t>(token)] : kNothing;
}

std::int64_t Corpus::IdOf(const std::string& bytes) const {
  const auto found = std::find(impl_->vocabulary.begin(), impl_->vocabulary.end(), bytes);
  return bytes.empty() || found == impl_->vocabulary.end() ? -1 : found - impl_->vocabulary.begin();
}

std::string Corpus::Decode(const std::vector<Token>& tokens) const {
  std::string text;
  for (const Token token : tokens) text += TokenBytes(token);
  return text;
}

std::string Corpus::Fingerprint() const {
  struct stat status {};
  if (stat(impl_->path.c_str(), &status) != 0) {
    throw MissingInput(impl_->path.string() + ": cannot be found any more: " + std::strerror(errno));
  }
  const std::int64_t mtime_ns = status.st_mtim.tv_sec * std::int64_t{1000000000} + status.st_mtim.tv_nsec;
  return std::to_string(status.st_size) + ":" + std::to_string(mtime_ns);
}

}  // namespace plural::data
