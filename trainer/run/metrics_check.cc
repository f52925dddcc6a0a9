#include "trainer/run/metrics_check.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "trainer/base/error.h"
#include "trainer/base/json_lines.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

// The order of a run's lines. Steps that are multiples of log_every_steps have a line, and so has the last
// one; a resume after step N stands behind all lines that belong to the first N steps.
class Order {
 public:
  explicit Order(std::int64_t log_every_steps) : every_(log_every_steps) {}

  // "" when `line` may stand here.
  std::string Take(const json& line) {
    if (!line.is_object()) return "not a JSON object";
    const json event = line.value("event", json()), at = line.value("step", json());
    if (!event.is_string() || !at.is_number_unsigned()) return "has no 'event' and 'step'";
    const auto step = at.get<std::int64_t>();
    if (first_ && event != "start" && event != "resume") return "does not begin with a start";
    if (step < last_) return "step " + std::to_string(step) + " behind step " + std::to_string(last_);
    std::string problem;
    if (event == "start" || event == "resume") problem = Begin(step, line);
    if (event == "step") problem = TakeStep(step);
    if (event == "end") ended_ = true;
    last_ = step;
    first_ = false;
    return problem;
  }
  std::int64_t LastStep() const { return last_; }
  std::int64_t ShownStep() const { return shown_; }
  const std::string& Lost() const { return lost_; }
  bool Ended() const { return ended_; }

 private:
  std::string Begin(std::int64_t step, const json& line) {
    const std::int64_t next = (shown_ / every_ + 1) * every_;
    if (line.contains(kLostLines)) {
      lost_ += (lost_.empty() ? "" : ", ") + Steps(shown_ + 1, step);
    } else if (!first_ && step >= next && step != shown_) {
      return Missing(next, step);
    }
    shown_ = step;
    if (const json every = line.value("log_every_steps", json()); every.is_number_unsigned()) {
      every_ = std::max<std::int64_t>(1, every.get<std::int64_t>());
    }
    if (const json end = line.value("last_step", json()); end.is_number_unsigned()) {
      end_ = end.get<std::int64_t>();
    }
    return "";
  }

  std::string TakeStep(std::int64_t step) {
    const std::int64_t next = (shown_ / every_ + 1) * every_;
    if (step <= shown_) return "step " + std::to_string(step) + " stands twice";
    if (step > next) return Missing(next, step - 1);
    if (step < next && step != end_) return "a line of step " + std::to_string(step) + " before its time";
    shown_ = step;
    return "";
  }

  static std::string Steps(std::int64_t from, std::int64_t to) {
    if (from == to) return "step " + std::to_string(from);
    return "steps " + std::to_string(from) + " to " + std::to_string(to);
  }
  static std::string Missing(std::int64_t from, std::int64_t to) {
    return (from == to ? "the line of " : "the lines of ") + Steps(from, to) +
           (from == to ? " is missing" : " are missing");
  }

  std::int64_t every_, shown_ = 0, last_ = 0, end_ = -1;
  std::string lost_;
  bool first_ = true, ended_ = false;
};

}  // namespace

MetricsCheck CheckMetrics(const std::filesystem::path& path, std::int64_t log_every_steps,
                          std::int64_t up_to_step) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {  // a pipe would be waited for
    throw ExitError(ExitCode::kMissingInput, path.string() + ": is no regular file");
  }
  MetricsCheck check;
  JsonLines lines(path.string());
  Order order(log_every_steps);
  const auto refuse = [&](const std::string& problem) {
    check.problem = problem;
    check.cut = !lines.IsWhole();
  };
  try {
    for (json line; lines.Next(line);) {
      if (line.is_object() && line.value("step", json()).is_number_unsigned() &&
          line["step"].get<std::int64_t>() > up_to_step) {
        return check;
      }
      const std::string problem = lines.IsWhole() ? order.Take(line) : "its end is missing";
      if (!problem.empty()) {
        refuse(Printable(lines.Where() + ": " + problem));
        return check;
      }
      ++check.lines;
      check.bytes = lines.EndBytes();
      check.last_step = order.LastStep();
      check.shown_step = order.ShownStep();
      check.lost = order.Lost();
      check.ended = order.Ended();
    }
  } catch (const ExitError& what) {
    if (what.Code() != ExitCode::kBadData) throw;
    refuse(what.what());
  }
  return check;
}

namespace {

// Whether the first `bytes` of the file end with the line that the checkpoint of `step` has written last.
bool EndsWithCheckpoint(const std::filesystem::path& path, std::int64_t bytes, std::int64_t step) {
  const std::string line = R"({"event":"checkpoint","step":)" + std::to_string(step) + "}\n";
  const auto size = static_cast<std::int64_t>(line.size());
  std::ifstream file(path, std::ios::binary);
  std::string found(line.size(), '\0');
  return bytes >= size && file.seekg(bytes - size) && file.read(found.data(), size) && found == line;
}

}  // namespace

MetricsLeft LeftOfMetrics(const std::filesystem::path& path, std::int64_t committed_bytes, std::int64_t step,
                          std::int64_t log_every_steps) {
  if (committed_bytes == 0) return {};
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error) return {.bytes = 0, .lost_after_step = 0};
  if (EndsWithCheckpoint(path, committed_bytes, step)) return {.bytes = committed_bytes};
  const MetricsCheck check = CheckMetrics(path, log_every_steps, step);
  MetricsLeft left{.bytes = check.bytes};
  if (check.bytes < committed_bytes && check.shown_step < step) left.lost_after_step = check.shown_step;
  return left;
}

}  // namespace plural::trainer
