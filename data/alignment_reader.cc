#include "data/alignment_reader.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "data/error.h"

namespace plural::data {
namespace {

constexpr std::int64_t kMaxCentreElements = std::int64_t{1} << 28;
constexpr std::int64_t kMaxKindBytes = std::int64_t{1} << 24;

}  // namespace

AlignmentReader::AlignmentReader(const Hdf5File& file, int possibilities, std::int64_t responses,
                                 std::int64_t max_elements) {
  const std::string where = file.Name() + ": attribute ";
  const std::int64_t numbers = file.IntegerAttribute("alignment_possibilities");
  if (numbers < 2 || numbers > possibilities) {
    throw DataError(where + "'alignment_possibilities' is " + std::to_string(numbers) +
                    ", 2 to the corpus's 'possibilities' (" + std::to_string(possibilities) +
                    ") are allowed");
  }
  info_.possibilities = static_cast<int>(numbers);
  info_.source = file.StringAttribute("alignment_source");
  if (info_.source == "kmeans") {
    ReadCentres(file);
  } else if (info_.source == "kinds") {
    ReadKinds(file);
  } else {
    throw DataError(where + "'alignment_source' is " + Quoted(info_.source) +
                    "; kmeans and kinds are allowed");
  }
  affinities_ = file.Open<float>("response_affinities", max_elements);
  if (affinities_.Size() != responses * numbers) {
    throw DataError(affinities_.Where() + " has " + std::to_string(affinities_.Size()) + " elements, " +
                    std::to_string(numbers) + " for each of " + std::to_string(responses) +
                    " responses are needed");
  }
}

void AlignmentReader::ReadCentres(const Hdf5File& file) {
  info_.encoder = file.StringAttribute("alignment_encoder");
  info_.encoder_sha256 = file.StringAttribute("alignment_encoder_sha256");
  if (info_.encoder_sha256.size() != 64 ||
      info_.encoder_sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw DataError(file.Name() + ": attribute 'alignment_encoder_sha256' is " +
                    Quoted(info_.encoder_sha256) + ", 64 lower-case hex digits are needed");
  }
  const auto centres = file.Open<float>("alignment_centres", kMaxCentreElements);
  if (centres.Size() == 0 || centres.Size() % info_.possibilities != 0) {
    throw DataError(centres.Where() + " has " + std::to_string(centres.Size()) +
                    " elements, as many for each of " + std::to_string(info_.possibilities) +
                    " numbers (alignment_possibilities) are needed");
  }
  info_.dimensions = centres.Size() / info_.possibilities;
  const std::vector<float> values = centres.ReadAll();
  const auto wrong = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (wrong != values.end()) {
    throw DataError(centres.Where() + " is " + std::to_string(*wrong) + " at element " +
                    std::to_string(wrong - values.begin()) + ", finite numbers are needed");
  }
}

void AlignmentReader::ReadKinds(const Hdf5File& file) {
  const auto dataset = file.Open<std::uint8_t>("alignment_kinds", kMaxKindBytes);
  std::string kind;
  for (const std::uint8_t byte : dataset.ReadAll()) {
    if (byte != '\n') {
      kind += static_cast<char>(byte);
      continue;
    }
    info_.kinds.push_back(kind);
    kind.clear();
  }
  if (!kind.empty() || info_.kinds.size() != static_cast<std::size_t>(info_.possibilities)) {
    throw DataError(dataset.Where() + " has " + std::to_string(info_.kinds.size()) +
                    " ended lines, one for each of " + std::to_string(info_.possibilities) +
                    " numbers (alignment_possibilities) is needed, the last ended too");
  }
}

void AlignmentReader::Read(std::int64_t first, std::vector<Response>& responses) const {
  const std::int64_t numbers = info_.possibilities;
  const std::int64_t begin = first * numbers;
  const auto count = static_cast<std::int64_t>(responses.size());
  const std::vector<float> values = affinities_.Read(begin, begin + count * numbers);
  const auto allowed = [](float value) { return value >= -1.0F && value <= 1.0F; };  // not NaN either
  const auto wrong = std::find_if_not(values.begin(), values.end(), allowed);
  if (wrong != values.end()) {
    const std::int64_t element = begin + (wrong - values.begin());
    throw DataError(affinities_.Where() + " is " + std::to_string(*wrong) + " at element " +
                    std::to_string(element) + " (response " + std::to_string(element / numbers) +
                    "), -1 to 1 are allowed");
  }
  for (std::int64_t r = 0; r < count; ++r) {
    const auto from = values.begin() + r * numbers;
    responses[static_cast<std::size_t>(r)].affinity.assign(from, from + numbers);
  }
}

}  // namespace plural::data
