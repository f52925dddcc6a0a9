#include "trainer/base/json_io.h"

#include <nlohmann/json.hpp>
#include <set>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/printable.h"

namespace plural {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::size_t kMaxDepth = 16;
constexpr std::uintmax_t kMaxFileBytes = 16 << 20;

[[noreturn]] void Fail(const std::string& where, const std::string& what) {
  throw ExitError(ExitCode::kBadData, Printable(where + ": " + what));
}

// "[json.exception.parse_error.101] parse error at ..." without the library's own number.
std::string Reason(const json::exception& error) {
  const std::string what = error.what();
  const std::size_t end = what.find("] ");
  return end == std::string::npos ? what : what.substr(end + 2);
}

// Looks at the structure alone. The library's parser with a callback goes through all values of an object
// again for each object in it: minutes for a file that holds a hundred thousand empty ones.
class Structure : public nlohmann::json_sax<json> {
 public:
  explicit Structure(const std::string& where) : where_(where) {}

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool start_object(std::size_t) override { return Open(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) Fail(where_, "key '" + key + "' stands twice; remove one");
    return true;
  }
  // The parser proper says what is wrong.
  bool parse_error(std::size_t, const std::string&, const json::exception&) override { return false; }

 private:
  bool Value() const {
    if (keys_.size() > kMaxDepth) Fail(where_, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    return true;
  }
  bool Open() {
    Value();
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  const std::string& where_;
  std::vector<std::set<std::string>> keys_;  // of each open object, and an empty set of each open list
};

}  // namespace

json ParseJson(std::string_view text, const std::string& where) {
  // The library takes a NUL byte for the end of the input and skips a byte order mark.
  if (text.find('\0') != std::string_view::npos) Fail(where, "not JSON: it holds a NUL byte");
  if (text.starts_with("\xEF\xBB\xBF")) Fail(where, "not JSON: it begins with a byte order mark; remove it");
  Structure structure(where);
  try {
    json::sax_parse(text, &structure);
    return json::parse(text);
  } catch (const json::exception& error) {
    Fail(where, "not valid JSON: " + Reason(error));
  }
}

json ReadJsonFile(const fs::path& path) {
  // Checked before opening: a pipe in place of the file would block for ever.
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw ExitError(ExitCode::kMissingInput, "'" + path.string() + "' is not a regular file");
  }
  const std::uintmax_t size = fs::file_size(path, error);
  if (!error && size > kMaxFileBytes) {
    Fail("'" + path.string() + "'",
         std::to_string(size) + " bytes; at most " + std::to_string(kMaxFileBytes) + " are accepted");
  }
  const std::string text = ReadFile(path);
  if (IsGitLfsPointer(text)) Fail("'" + path.string() + "'", kGitLfsAdvice);
  return ParseJson(text, "'" + path.string() + "'");
}

std::vector<std::int64_t> TokenIds(const json& object, const char* key, std::int64_t vocab_size,
                                   const std::string& where) {
  const auto list = object.find(key);
  if (list == object.end()) Fail(where, "key '" + std::string(key) + "' is missing");
  if (!list->is_array() || list->empty()) {
    Fail(where, "'" + std::string(key) + "' must be a list of at least one token id");
  }
  std::vector<std::int64_t> ids;
  ids.reserve(list->size());
  for (const json& id : *list) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      Fail(where, "'" + std::string(key) + "' holds " + id.dump() + "; token ids of this model are 0 to " +
                      std::to_string(vocab_size - 1));
    }
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

}  // namespace plural
