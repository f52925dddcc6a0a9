#include "trainer/run/trained_record.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "trainer/base/file_io.h"
#include "trainer/base/readable.h"

namespace plural::trainer {

std::string TrainedRecord(const Recipe& recipe, const TrainState& state, const std::filesystem::path& metrics,
                          const std::string& base_license) {
  nlohmann::ordered_json trained = {
      {"command", "plural train recipe.yaml"},  // the run's folder has it
      {"method", recipe.method->name},         {"seed", recipe.seed},
      {"steps", state.position.step},          {"groups", state.position.consumed_groups},
      {"corpus_sha256", state.identity.corpus}};
  if (const std::string& weights = state.identity.weights_sha256; !weights.empty()) {
    trained["base_weights_sha256"] = weights;
  }
  if (!base_license.empty()) trained["base_license"] = base_license;
  const auto keep = [&](const std::string& before, const nlohmann::json& line) {
    for (const auto& [key, value] : line.items()) {
      const bool figure = value.is_number_float() && key != "seconds" && key != "epoch" && key != "lr" &&
                          key != "temperature" && key.find("_per_second") == std::string::npos &&
                          key.find("_seconds") == std::string::npos;
      if (figure) trained["figures"][before + key] = FourDigits(value.get<double>());
    }
  };
  nlohmann::json step, validation;
  std::istringstream lines(ReadFile(metrics));
  for (std::string text; std::getline(lines, text);) {
    nlohmann::json line = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) continue;
    const nlohmann::json event = line.value("event", nlohmann::json());
    if (event == "step" || event == "validation") (event == "step" ? step : validation) = std::move(line);
  }
  if (step.contains("loss")) keep("", {{"loss_of_the_last_step", step["loss"]}});
  keep("validation_", validation);
  return trained.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace plural::trainer
