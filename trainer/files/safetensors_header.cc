#include "trainer/files/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace plural::trainer {
namespace {

struct DTypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<DTypeName, 7> kDTypes = {{{"F64", at::ScalarType::Double},
                                               {"F32", at::ScalarType::Float},
                                               {"F16", at::ScalarType::Half},
                                               {"BF16", at::ScalarType::BFloat16},
                                               {"I64", at::ScalarType::Long},
                                               {"I32", at::ScalarType::Int},
                                               {"U8", at::ScalarType::Byte}}};

constexpr std::uint64_t kMaxNumber = std::uint64_t{1} << 53;  // what every JSON reader holds exactly
constexpr std::size_t kMaxDimensions = 8;

// A state machine over the parser's events rather than a walk of a parsed value: the parsed value has
// lost duplicate keys, and the nesting that this grammar allows is known beforehand.
class HeaderSax : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderSax(std::map<std::string, SafetensorsReader::Entry>& entries,
            std::map<std::string, std::string>& metadata)
      : entries_(entries), metadata_(metadata) {}

  const std::string& Error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected("the number " + text + ", whole numbers up to 2^53 are allowed,");
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::kShape && state_ != State::kOffsets) return Unexpected("a number");
    if (value > kMaxNumber) return Refuse(std::to_string(value) + " is larger than 2^53");
    if (state_ == State::kShape && entry_.shape.size() == kMaxDimensions) {
      return Refuse("more than " + std::to_string(kMaxDimensions) + " dimensions");
    }
    auto& list = state_ == State::kShape ? entry_.shape : offsets_;
    list.push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata_[key_] = value;
      return true;
    }
    if (state_ != State::kTensor || key_ != "dtype") return Unexpected("a string");
    for (const DTypeName& known : kDTypes) {
      if (value == known.name) {
        entry_.dtype = known.dtype;
        return true;
      }
    }
    return Refuse("dtype '" + value + "'; supported are F64, F32, F16, BF16, I64, I32 and U8");
  }

  bool start_object(std::size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
    } else if (state_ == State::kRoot && name_ == "__metadata__") {
      state_ = State::kMetadata;
    } else if (state_ == State::kRoot) {
      state_ = State::kTensor;
      entry_ = {};
      offsets_.clear();
      fields_.clear();
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    if (state_ == State::kRoot) {
      name_ = value;
      const bool twice =
          value == "__metadata__" ? std::exchange(has_metadata_, true) : entries_.contains(value);
      return twice ? Refuse("the name stands twice in the header") : true;
    }
    if (state_ == State::kMetadata) {
      return metadata_.contains(value) ? Refuse("key '" + value + "' stands twice") : true;
    }
    if (value != "dtype" && value != "shape" && value != "data_offsets") {
      return Refuse("unknown field '" + value + "'");
    }
    if (std::find(fields_.begin(), fields_.end(), value) != fields_.end()) {
      return Refuse("field '" + value + "' stands twice");
    }
    fields_.push_back(value);
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor && !FinishEntry()) return false;
    state_ = State::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::kTensor || (key_ != "shape" && key_ != "data_offsets")) return Unexpected("a list");
    state_ = key_ == "shape" ? State::kShape : State::kOffsets;
    return true;
  }

  bool end_array() override {
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    if (error_.empty()) error_ = "the header is not valid JSON at its byte " + std::to_string(position);
    return false;
  }

 private:
  enum class State { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets };

  bool Refuse(const std::string& what) {
    error_ = name_.empty() ? what : "tensor '" + name_ + "': " + what;
    return false;
  }
  bool Unexpected(const std::string& found) {
    return Refuse("the header has " + found + " where the format has none");
  }

  bool FinishEntry() {
    if (fields_.size() != 3) return Refuse("dtype, shape and data_offsets are all needed");
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) {
      return Refuse("data_offsets must be two numbers, the first not above the second");
    }
    // Dimensions of 0 count as 1 in the overflow check, since strides multiply them that way.
    std::int64_t bytes = static_cast<std::int64_t>(at::elementSize(entry_.dtype));
    bool empty = false;
    for (const std::int64_t dimension : entry_.shape) {
      empty = empty || dimension == 0;
      if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(dimension, 1), &bytes)) {
        return Refuse("its shape has more elements than can be counted");
      }
    }
    if (empty) bytes = 0;
    if (offsets_[1] - offsets_[0] != bytes) {
      return Refuse("its shape needs " + std::to_string(bytes) + " bytes, data_offsets give " +
                    std::to_string(offsets_[1] - offsets_[0]));
    }
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    entries_.emplace(name_, std::move(entry_));
    name_.clear();
    return true;
  }

  std::map<std::string, SafetensorsReader::Entry>& entries_;
  std::map<std::string, std::string>& metadata_;
  std::string error_;
  State state_ = State::kStart;
  std::string name_, key_;
  bool has_metadata_ = false;
  SafetensorsReader::Entry entry_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::string> fields_;
};

}  // namespace

const char* SafetensorsDType(at::ScalarType dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == dtype) return known.name;
  }
  throw std::logic_error(std::string("no safetensors dtype for ") + at::toString(dtype));
}

bool ParseSafetensorsHeader(const std::string& header,
                            std::map<std::string, SafetensorsReader::Entry>& entries,
                            std::map<std::string, std::string>& metadata, std::string& error) {
  if (header.front() != '{') {
    error = "the header does not begin with '{': not a safetensors file";
    return false;
  }
  // The library takes a NUL byte for the end of the input, and would not look at what follows.
  if (header.find('\0') != std::string::npos) {
    error = "the header holds a NUL byte";
    return false;
  }
  HeaderSax sax(entries, metadata);
  if (nlohmann::json::sax_parse(header, &sax)) return true;
  error = sax.Error();
  return false;
}

}  // namespace plural::trainer
