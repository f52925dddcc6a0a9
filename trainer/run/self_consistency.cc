#include "trainer/run/self_consistency.h"

#include <algorithm>

#include "dist/ordered.h"
#include "trainer/generate/generator.h"
#include "trainer/method/latent_unit.h"

namespace plural::trainer {
namespace {

// One response per latent to `prompt`, in order of the latents, as a group whose responses they are.
data::Group ResponsesOfLatents(const Decoder& model, const data::Group& prompt, std::int64_t max_new_tokens) {
  const auto taken = static_cast<std::int64_t>(prompt.prompt_tokens.size() + prompt.tails[0].size()) + 1;
  GenerateSettings settings;
  settings.latent_policy = LatentPolicy::kAll;
  settings.sampling.temperature = 0.0;
  settings.max_new_tokens = std::min(max_new_tokens, model.Config().max_position_embeddings - taken);
  data::Group answered = prompt;
  answered.responses.clear();
  const std::vector<GeneratedPrompt> generated = Generate(model, {prompt}, settings);
  for (const GeneratedResponse& generated_response : generated.front().responses) {
    data::Response response;
    response.tokens = generated_response.tokens;
    if (generated_response.finished) {
      response.tokens.push_back(static_cast<data::Token>(model.Config().eos_token_ids.front()));
    }
    answered.responses.push_back(std::move(response));
  }
  return answered;
}

}  // namespace

SelfConsistency MeasureSelfConsistency(const Decoder& model, const std::vector<data::Group>& prompts,
                                       std::int64_t max_new_tokens, const data::PackSettings& pack,
                                       const dist::World& world, dist::Collectives& collectives) {
  double counts[] = {0.0, 0.0};
  for (const std::int64_t p : dist::MyShare(static_cast<std::int64_t>(prompts.size()), world)) {
    const data::Group answered =
        ResponsesOfLatents(model, prompts[static_cast<std::size_t>(p)], max_new_tokens);
    const std::vector<int> recognised = RecognizeLatents(model, answered, pack);
    for (std::size_t z = 0; z < recognised.size(); ++z) {
      counts[0] += 1.0;
      counts[1] += recognised[z] == static_cast<int>(z) + 1 ? 1.0 : 0.0;
    }
  }
  collectives.AllReduceSum(counts);
  return {.responses = static_cast<std::int64_t>(counts[0]),
          .recognised = static_cast<std::int64_t>(counts[1])};
}

}  // namespace plural::trainer
