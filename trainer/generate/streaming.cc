#include "trainer/generate/streaming.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "data/error.h"
#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/generate/answer_json.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxRequestBytes = 64 << 20;
constexpr std::int64_t kMaxRequested = std::int64_t{1} << 20;

// Lines of a file descriptor, numbered from 1; empty ones are passed over.
class LineReader {
 public:
  explicit LineReader(int input) : input_(input) {}

  // The next line. Without `wait`, nothing when none has arrived yet; nothing at the end of the input.
  std::optional<std::string> Next(bool wait) {
    while (true) {
      while (auto line = TakeLine()) {
        if (line->find_first_not_of(" \t\r") != std::string::npos) return line;
      }
      if (ended_ || (!wait && !Ready())) return std::nullopt;
      Fill();
    }
  }
  std::string Where() const { return "standard input line " + std::to_string(number_); }

 private:
  std::optional<std::string> TakeLine() {
    const std::size_t end = buffer_.find('\n', searched_);
    if (end == std::string::npos && !(ended_ && !buffer_.empty())) {
      searched_ = buffer_.size();
      return std::nullopt;
    }
    ++number_;
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end == std::string::npos ? end : end + 1);
    searched_ = 0;
    return line;
  }

  bool Ready() const {
    pollfd descriptor{.fd = input_, .events = POLLIN, .revents = 0};
    return poll(&descriptor, 1, 0) > 0;
  }

  void Fill() {
    std::array<char, 1 << 16> part{};
    const ssize_t got = read(input_, part.data(), part.size());
    if (got < 0 && errno == EINTR) return;
    if (got < 0) {
      throw ExitError(ExitCode::kMissingInput, std::string("standard input: ") + std::strerror(errno));
    }
    ended_ = got == 0;
    buffer_.append(part.data(), static_cast<std::size_t>(got));
    if (buffer_.size() > kMaxRequestBytes && buffer_.find('\n', searched_) == std::string::npos) {
      throw ExitError(ExitCode::kBadData, "standard input line " + std::to_string(number_ + 1) +
                                              ": longer than " + std::to_string(kMaxRequestBytes) + " bytes");
    }
  }

  int input_;
  std::string buffer_;
  std::size_t searched_ = 0;  // no line ends before it
  std::int64_t number_ = 0;
  bool ended_ = false;
};

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw ExitError(ExitCode::kBadData, where + ": " + what);
}

std::int64_t Integer(const json& value, const std::string& key, std::int64_t least, std::int64_t most,
                     const std::string& where) {
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most));
  if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
    Refuse(where, "'" + key + "' is " + value.dump() + "; allowed: a whole number from " +
                      std::to_string(least) + " to " + std::to_string(most));
  }
  return value.get<std::int64_t>();
}

double Number(const json& value, const std::string& key, double least, double most,
              const std::string& where) {
  if (!value.is_number() || !(value.get<double>() >= least) || !(value.get<double>() <= most)) {
    Refuse(where, "'" + key + "' is " + value.dump() + "; allowed: a number from " + json(least).dump() +
                      " to " + json(most).dump());
  }
  return value.get<double>();
}

struct Request {
  json id;
  data::Group prompt;
  GenerateSettings settings;
};

std::vector<data::Token> Tokens(const json& object, const char* key, const Decoder& model,
                                const std::string& where) {
  const auto ids = TokenIds(object, key, model.Config().vocab_size, where);
  return {ids.begin(), ids.end()};
}

// One list of tokens that closes the prompt for each response, as possibility numbers do.
void ReadTails(const json& value, const Decoder& model, const std::string& where, Request& request) {
  if (!value.is_array() || value.empty()) Refuse(where, "'tails' must be a list of lists of token ids");
  request.settings.policy = PossibilityPolicy::kFirst;
  request.settings.responses = static_cast<std::int64_t>(value.size());
  for (const json& tail : value) {
    request.prompt.tails.push_back(Tokens({{"tails", tail}}, "tails", model, where));
  }
}

Request ParseRequest(const std::string& line, const GenerateSettings& defaults, const Decoder& model,
                     const std::string& where) {
  const json object = ParseJson(line, where);
  if (!object.is_object()) Refuse(where, "a JSON object is needed");
  Request request;
  request.settings = defaults;
  request.prompt.tails = {{}};
  request.prompt.prompt_tokens = Tokens(object, "prompt_tokens", model, where);
  GenerateSettings& settings = request.settings;
  for (const auto& [key, value] : object.items()) {
    if (key == "id") {
      if (!value.is_string() && !value.is_number_integer())
        Refuse(where, "'id' must be a string or a whole number");
      request.id = value;
      request.prompt.id = value.is_string() ? value.get<std::string>() : value.dump();
    } else if (key == "responses") {
      settings.responses = Integer(value, key, 1, kMaxRequested, where);
    } else if (key == "max_new_tokens") {
      settings.max_new_tokens = Integer(value, key, 1, kMaxRequested, where);
    } else if (key == "min_new_tokens") {
      settings.min_new_tokens = Integer(value, key, 0, kMaxRequested, where);
    } else if (key == "seed") {
      settings.seed =
          static_cast<std::uint64_t>(Integer(value, key, 0, std::numeric_limits<std::int64_t>::max(), where));
    } else if (key == "temperature") {
      settings.sampling.temperature = Number(value, key, 0.0, 100.0, where);
    } else if (key == "top_k") {
      settings.sampling.top_k = Integer(value, key, 0, std::numeric_limits<std::int32_t>::max(), where);
    } else if (key == "top_p") {
      settings.sampling.top_p = Number(value, key, 1e-9, 1.0, where);
    } else if (key == "latents") {
      settings.latent_policy = LatentPolicy::kGiven;
      if (!value.is_array() || value.empty())
        Refuse(where, "'latents' must be a list of latents, such as [1, 3]");
      settings.latents.clear();
      for (const json& latent : value) {
        settings.latents.push_back(static_cast<int>(Integer(latent, key, 1, kMaxRequested, where)));
      }
    } else if (key != "prompt_tokens" && key != "tails") {
      Refuse(where, "unknown key '" + key +
                        "'; allowed are id, prompt_tokens, tails, responses, seed, "
                        "temperature, top_k, top_p, max_new_tokens, min_new_tokens, latents");
    }
  }
  if (request.id.is_null()) Refuse(where, "key 'id' is missing");
  if (const auto tails = object.find("tails"); tails != object.end()) {
    if (object.contains("responses") || settings.latent_policy != LatentPolicy::kNone) {
      Refuse(where, "'tails' stands for one response each: leave out 'responses' and latents");
    }
    ReadTails(*tails, model, where, request);
  }
  return request;
}

// Queues one request; returns its ticket.
std::int64_t AddRequest(const Request& request, const std::string& where, Generator& generator) {
  try {
    return generator.Add(request.prompt, request.settings);
  } catch (const data::DataError& error) {
    Refuse(where, error.what());
  } catch (const ExitError& error) {
    throw ExitError(error.Code(), where + ": " + error.what());
  }
}

}  // namespace

void AnswerStream(const Decoder& model, const GenerateSettings& defaults, std::int64_t rows,
                  const data::Corpus* vocabulary, int input, std::ostream& output) {
  Generator generator(model, rows);
  LineReader lines(input);
  std::map<std::int64_t, json> ids;  // of the tickets under way
  std::exception_ptr refused;        // told when the requests before it are answered
  while (true) {
    while (!refused && generator.HasRoom()) {
      const std::optional<std::string> line = lines.Next(generator.Idle());
      if (!line) break;
      try {
        const Request request = ParseRequest(*line, defaults, model, lines.Where());
        ids[AddRequest(request, lines.Where(), generator)] = request.id;
      } catch (const ExitError&) {
        refused = std::current_exception();
      }
    }
    if (generator.Idle()) break;  // Next waited, so the input has ended
    for (const Generator::Finished& finished : generator.Step()) {
      json answer = {{"id", ids[finished.ticket]}};
      answer.update(AnswerJson(finished.prompt, vocabulary));
      ids.erase(finished.ticket);
      output << answer.dump(-1, ' ', false, json::error_handler_t::replace) << "\n" << std::flush;
      if (!output) throw ExitError(ExitCode::kCannotCreate, "standard output: it cannot be written any more");
    }
  }
  if (refused) std::rethrow_exception(refused);
}

}  // namespace plural::trainer
