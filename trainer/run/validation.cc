#include "trainer/run/validation.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>

#include "trainer/generate/generator.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/method/cvf.h"
#include "trainer/method/evaluation.h"
#include "trainer/plan/cost_model.h"

namespace plural::trainer {
namespace {

using Tokens = std::vector<data::Token>;

// Distinct-n over token ids, since no text is at hand here: different n-grams / n-grams
// (docs/methods.md 8.8).
double TokenDistinct(const std::vector<std::vector<Tokens>>& responses, std::size_t n) {
  std::set<Tokens> different;
  std::size_t total = 0;
  for (const auto& of_prompt : responses) {
    for (const Tokens& tokens : of_prompt) {
      for (std::size_t at = 0; at + n <= tokens.size(); ++at, ++total) {
        different.emplace(tokens.begin() + static_cast<std::ptrdiff_t>(at),
                          tokens.begin() + static_cast<std::ptrdiff_t>(at + n));
      }
    }
  }
  return total == 0 ? 0.0 : static_cast<double>(different.size()) / static_cast<double>(total);
}

GenerateSettings SamplingOf(const Recipe& recipe) {
  GenerateSettings settings;
  settings.responses = recipe.validation.responses;
  settings.max_new_tokens = recipe.validation.max_new_tokens;
  settings.sampling.temperature = recipe.validation.temperature;
  settings.seed = recipe.seed;
  if (recipe.method == data::Method::kPeft) settings.policy = PossibilityPolicy::kSample;
  if (recipe.method == data::Method::kCvf) settings.latent_policy = LatentPolicy::kSample;
  return settings;
}

}  // namespace

// Plain numbers, so that ranks can exchange them as bytes.
struct Validation::OfGroup {
  double likelihood = 0.0, unlikelihood = 0.0, bow = 0.0;
  double logprob_nats = 0.0, tokens = 0.0;  // of the positives
  TargetFigures targets{};
  PossibilityFigures possibilities{};
};

Validation::Validation(const Recipe& recipe, const ModelConfig& config, at::Device device,
                       data::Corpus& corpus)
    : recipe_(recipe) {
  pack_.layout = recipe.train.layout;
  pack_.cost = CostOf(config, false, ElementBytes(recipe.model.dtype), device);
  const std::int64_t groups = std::min(corpus.Info().groups, recipe.validation.groups);
  for (std::int64_t g = 0; g < groups; ++g) groups_.push_back(corpus.Read(g));
}

Validation::OfGroup Validation::MeasureGroup(const Decoder& model, const data::Group& group,
                                             LatentSums& latents) const {
  const data::LabelledGroup labelled = data::Label(group, recipe_.LabelSettings(), 0);
  OfGroup figures;
  figures.tokens = static_cast<double>(labelled.positive_tokens);
  if (recipe_.method == data::Method::kCvf) {
    const UnitFigures latent =
        EvaluateLatents(model, {&labelled, 1}, pack_,
                        {recipe_.cvf.estimator, recipe_.cvf.temperature, recipe_.cvf.bow_weight, {}});
    figures.likelihood = latent.likelihood;
    figures.bow = latent.bow;
    figures.logprob_nats = latent.logprob_nats;
    latents = latent.sums;
    return figures;
  }
  ObjectiveSettings settings;
  settings.unlikelihood_clamp = recipe_.loss.unlikelihood_clamp;
  std::vector<double> log_p(labelled.sequences.size());
  for (const data::RowPass& pass : data::PackGroups({&labelled, 1}, pack_, 1.0)) {
    const PassFigures result = ReadFigures(pass, RunPass(model, pass, settings).values);
    figures.likelihood += result.likelihood;
    figures.unlikelihood += result.unlikelihood;
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      log_p[static_cast<std::size_t>(pass.sequences[s].sequence)] = result.sequence_log_p[s];
    }
  }
  for (std::size_t s = 0; s < log_p.size(); ++s) {
    if (labelled.sequences[s].positive) figures.logprob_nats += log_p[s];
  }
  if (recipe_.method == data::Method::kDistributionMatching) {
    figures.targets = FiguresOfTargets(labelled, log_p);
  }
  if (recipe_.method == data::Method::kPeft) {
    figures.possibilities = EvaluatePossibilities(model, group, pack_).value_or(PossibilityFigures{});
  }
  return figures;
}

MetricsLine Validation::Measure(const Decoder& model, const dist::World& world,
                                dist::Collectives& collectives) const {
  const auto start = std::chrono::steady_clock::now();
  const c10::NoGradGuard no_grad;
  const auto size = static_cast<std::size_t>(world.Size());
  const bool is_cvf = recipe_.method == data::Method::kCvf;
  std::string mine;
  nlohmann::json my_latents = nlohmann::json::array();
  for (auto g = static_cast<std::size_t>(world.Rank()); g < groups_.size(); g += size) {
    LatentSums latents;
    const OfGroup figures = MeasureGroup(model, groups_[g], latents);
    if (is_cvf) my_latents.push_back(latents.Packed(recipe_.cvf.latents));
    mine.append(reinterpret_cast<const char*>(&figures), sizeof(figures));
  }
  const std::vector<std::string> parts = collectives.AllGather(mine);

  OfGroup sum;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    OfGroup one;
    std::memcpy(&one, parts[g % size].data() + g / size * sizeof(one), sizeof(one));
    sum.likelihood += one.likelihood;
    sum.unlikelihood += one.unlikelihood;
    sum.bow += one.bow;
    sum.logprob_nats += one.logprob_nats;
    sum.tokens += one.tokens;
    sum.targets.kl_nats += one.targets.kl_nats;
    sum.targets.entropy_nats += one.targets.entropy_nats;
    sum.targets.target_mass += one.targets.target_mass;
    sum.targets.cross_entropy_nats += one.targets.cross_entropy_nats;
    sum.possibilities.mixture_entropy_nats += one.possibilities.mixture_entropy_nats;
    sum.possibilities.information_nats += one.possibilities.information_nats;
  }
  const auto groups = static_cast<double>(groups_.size());
  MetricsLine line;
  line["groups"] = groups_.size();
  line["loss"] = MetricsNumber((sum.likelihood + sum.unlikelihood + sum.bow) / groups);
  line["likelihood"] = MetricsNumber(sum.likelihood / groups);
  line["unlikelihood"] = MetricsNumber(sum.unlikelihood / groups);
  line["nats_per_token"] = MetricsNumber(-sum.logprob_nats / sum.tokens);
  line["perplexity"] = MetricsNumber(std::exp(-sum.logprob_nats / sum.tokens));
  if (recipe_.method == data::Method::kDistributionMatching) {
    line["kl_nats"] = MetricsNumber(sum.targets.kl_nats / groups);
    line["entropy_nats"] = MetricsNumber(sum.targets.entropy_nats / groups);
    line["target_mass"] = MetricsNumber(sum.targets.target_mass / groups);
    line["cross_entropy_nats"] = MetricsNumber(sum.targets.cross_entropy_nats / groups);
  }
  if (is_cvf) {
    std::vector<nlohmann::json> latents;  // of each rank's groups
    for (const std::string& part : collectives.AllGather(my_latents.dump())) {
      latents.push_back(nlohmann::json::parse(part));
    }
    LatentSums all;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      all.Add(LatentSums::Unpacked(latents[g % size].at(g / size).get<std::vector<double>>()));
    }
    const LatentFigures figures = FiguresOfLatents(all);
    line["bow"] = MetricsNumber(sum.bow / groups);
    line["used_latents"] = MetricsNumber(figures.used_latents);
    line["information_nats"] = MetricsNumber(figures.information_nats);
  }
  if (recipe_.method == data::Method::kPeft) {
    line["possibility_mixture_entropy_nats"] = sum.possibilities.mixture_entropy_nats / groups;
    line["possibility_information_nats"] = sum.possibilities.information_nats / groups;
  }
  if (recipe_.validation.responses > 0) AddSampled(model, world, collectives, line);
  line["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return line;
}

void Validation::AddSampled(const Decoder& model, const dist::World& world, dist::Collectives& collectives,
                            MetricsLine& line) const {
  const auto size = static_cast<std::size_t>(world.Size());
  std::vector<data::Group> prompts;
  for (auto g = static_cast<std::size_t>(world.Rank()); g < groups_.size(); g += size) {
    prompts.push_back(groups_[g]);
  }
  nlohmann::json mine = nlohmann::json::array();
  for (const auto& of_prompt : Generate(model, prompts, SamplingOf(recipe_))) {
    nlohmann::json responses = nlohmann::json::array();
    for (const GeneratedResponse& response : of_prompt.responses) {
      responses.push_back({{"tokens", response.tokens}, {"finished", response.finished}});
    }
    mine.push_back(std::move(responses));
  }

  std::vector<std::vector<Tokens>> sampled;
  double different = 0.0, finished = 0.0, total = 0.0;
  for (const std::string& part : collectives.AllGather(mine.dump())) {
    for (const nlohmann::json& of_prompt : nlohmann::json::parse(part)) {
      std::vector<Tokens>& responses = sampled.emplace_back();
      for (const nlohmann::json& response : of_prompt) {
        responses.push_back(response.at("tokens").get<Tokens>());
        finished += response.at("finished").get<bool>() ? 1.0 : 0.0;
        total += 1.0;
      }
      different += static_cast<double>(std::set<Tokens>(responses.begin(), responses.end()).size());
    }
  }
  line["responses"] = recipe_.validation.responses;
  line["temperature"] = recipe_.validation.temperature;
  line["different_responses"] = different / static_cast<double>(groups_.size());
  line["token_distinct_1"] = TokenDistinct(sampled, 1);
  line["token_distinct_2"] = TokenDistinct(sampled, 2);
  line["finished_share"] = finished / total;
}

}  // namespace plural::trainer
