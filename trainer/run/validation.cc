#include "trainer/run/validation.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "dist/ordered.h"
#include "trainer/generate/generator.h"
#include "trainer/method/pass_losses.h"
#include "trainer/run/train_lines.h"

namespace plural::trainer {
namespace {

using ResponseTokens = std::vector<data::Token>;

// Distinct-n over token ids, since no text is at hand here: different n-grams / n-grams
// (docs/methods.md 8.8).
double TokenDistinct(const std::vector<std::vector<ResponseTokens>>& responses, std::size_t n) {
  std::set<ResponseTokens> different;
  std::size_t total = 0;
  for (const auto& of_prompt : responses) {
    for (const ResponseTokens& tokens : of_prompt) {
      for (std::size_t at = 0; at + n <= tokens.size(); ++at, ++total) {
        different.emplace(tokens.begin() + static_cast<std::ptrdiff_t>(at),
                          tokens.begin() + static_cast<std::ptrdiff_t>(at + n));
      }
    }
  }
  return total == 0 ? 0.0 : static_cast<double>(different.size()) / static_cast<double>(total);
}

GenerateSettings SamplingOf(const Validation::Settings& validation) {
  GenerateSettings settings;
  settings.responses = validation.responses;
  settings.max_new_tokens = validation.max_new_tokens;
  settings.sampling.temperature = validation.temperature;
  settings.seed = validation.values.label.seed;
  if (validation.method->numbers) settings.policy = PossibilityPolicy::kSample;
  if (validation.method->latents) settings.latent_policy = LatentPolicy::kSample;
  return settings;
}

}  // namespace

Validation::Validation(const Settings& settings, data::Corpus& corpus) : settings_(settings) {
  const std::int64_t groups = std::min(corpus.Info().groups, settings.groups);
  for (std::int64_t g = 0; g < groups; ++g) groups_.push_back(corpus.Read(g));
}

Sums Validation::MeasureGroup(const Decoder& model, const data::Group& group) const {
  const Method& method = *settings_.method;
  const data::LabelledGroup labelled = Label(method, group, settings_.values.label, 0);
  const std::vector<data::RowPass> passes = data::PackGroups({&labelled, 1}, settings_.pack, 1.0);
  Sums sums = ValidationSums(method, settings_.values);
  std::vector<std::vector<double>> log_p;
  AddWithoutGradients({.model = model,
                       .method = method,
                       .settings = settings_.values,
                       .passes = passes,
                       .groups = {&labelled, 1},
                       .whole_sequences = true},
                      sums, log_p);
  sums["groups"] = 1.0;
  sums["response_tokens"] = static_cast<double>(labelled.positive_tokens);
  for (std::size_t s = 0; s < log_p[0].size(); ++s) {
    if (labelled.sequences[s].positive) sums["logprob_nats"] += log_p[0][s];
  }
  if (method.add_validation_sums != nullptr) {
    method.add_validation_sums(model, group, settings_.pack, sums);
  }
  return sums;
}

MetricsLine Validation::Measure(const Decoder& model, const dist::World& world,
                                dist::Collectives& collectives) const {
  const auto start = std::chrono::steady_clock::now();
  const c10::NoGradGuard no_grad;
  std::vector<std::string> mine;
  for (const std::int64_t g : dist::MyShare(static_cast<std::int64_t>(groups_.size()), world)) {
    mine.push_back(dist::BytesOf(MeasureGroup(model, groups_[static_cast<std::size_t>(g)]).Values()));
  }
  const Method& method = *settings_.method;
  Sums sums = ValidationSums(method, settings_.values);
  for (const std::string& bytes : dist::GatherInOrder(mine, collectives)) {
    Sums of_group = ValidationSums(method, settings_.values);
    std::ranges::copy(dist::NumbersIn(bytes), of_group.Values().begin());
    sums.Add(of_group);
  }
  const double groups = sums["groups"];
  const double nats_per_token = -sums["logprob_nats"] / sums["response_tokens"];
  MetricsLine line;
  line["groups"] = groups_.size();
  line["loss"] = MetricsNumber(LossOf(method, sums) / groups);
  line["likelihood"] = MetricsNumber(sums["likelihood"] / groups);
  line["unlikelihood"] = MetricsNumber(sums["unlikelihood"] / groups);
  line["nats_per_token"] = MetricsNumber(nats_per_token);
  line["perplexity"] = MetricsNumber(std::exp(nats_per_token));
  AddFigures(method, settings_.values, kValidationLine, sums, line);
  if (settings_.responses > 0) AddSampled(model, world, collectives, line);
  line["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return line;
}

void Validation::AddSampled(const Decoder& model, const dist::World& world, dist::Collectives& collectives,
                            MetricsLine& line) const {
  std::vector<data::Group> prompts;
  for (const std::int64_t g : dist::MyShare(static_cast<std::int64_t>(groups_.size()), world)) {
    prompts.push_back(groups_[static_cast<std::size_t>(g)]);
  }
  std::vector<std::string> mine;
  for (const auto& of_prompt : Generate(model, prompts, SamplingOf(settings_))) {
    nlohmann::json responses = nlohmann::json::array();
    for (const GeneratedResponse& response : of_prompt.responses) {
      responses.push_back({{"tokens", response.tokens}, {"finished", response.finished}});
    }
    mine.push_back(responses.dump());
  }

  std::vector<std::vector<ResponseTokens>> sampled;
  double different = 0.0, finished = 0.0, total = 0.0;
  for (const std::string& of_prompt : dist::GatherInOrder(mine, collectives)) {
    std::vector<ResponseTokens>& responses = sampled.emplace_back();
    for (const nlohmann::json& response : nlohmann::json::parse(of_prompt)) {
      responses.push_back(response.at("tokens").get<ResponseTokens>());
      finished += response.at("finished").get<bool>() ? 1.0 : 0.0;
      total += 1.0;
    }
    different += static_cast<double>(std::set<ResponseTokens>(responses.begin(), responses.end()).size());
  }
  line["responses"] = settings_.responses;
  line["temperature"] = settings_.temperature;
  line["different_responses"] = different / static_cast<double>(groups_.size());
  line["token_distinct_1"] = TokenDistinct(sampled, 1);
  line["token_distinct_2"] = TokenDistinct(sampled, 2);
  line["finished_share"] = finished / total;
}

}  // namespace plural::trainer
