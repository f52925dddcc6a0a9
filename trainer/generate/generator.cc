#include "trainer/generate/generator.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <span>
#include <utility>

#include "data/error.h"
#include "data/random.h"

namespace plural::trainer {
namespace {

std::vector<int> ChoosePossibilities(const data::Group& prompt, const GenerateSettings& settings) {
  const auto responses = static_cast<std::size_t>(settings.responses);
  std::vector<int> numbers(responses, 0);
  switch (settings.policy) {
    case PossibilityPolicy::kNone:
      return numbers;
    case PossibilityPolicy::kFirst:
      std::iota(numbers.begin(), numbers.end(), 1);
      break;
    case PossibilityPolicy::kSample:
      if (settings.responses <= prompt.Possibilities()) {
        numbers = data::SampleWithoutReplacement(
            {data::MixKey(settings.seed, data::Purpose::kPossibilities, data::HashName(prompt.id))},
            prompt.Possibilities(), static_cast<int>(settings.responses));
      } else {
        numbers.assign(responses, prompt.Possibilities() + 1);  // refused below
      }
      break;
    case PossibilityPolicy::kGiven:
      for (std::size_t i = 0; i < responses; ++i) {
        numbers[i] = settings.possibilities[i % settings.possibilities.size()];
      }
      break;
  }
  const int largest = *std::max_element(numbers.begin(), numbers.end());
  if (largest > prompt.Possibilities()) {
    throw data::DataError("prompt '" + prompt.id + "': " + std::to_string(settings.responses) +
                          " responses need possibility number " + std::to_string(largest) +
                          ", but the corpus has 1.." + std::to_string(prompt.Possibilities()) +
                          "; ask for fewer, or prepare the corpus with --possibilities " +
                          std::to_string(largest));
  }
  return numbers;
}

// A response while it is decoded.
struct Live {
  std::size_t prompt = 0;
  std::int64_t index = 0;
  std::uint64_t key = 0;  // of its draws
};

template <typename Real>
data::Token Draw(const at::Tensor& logits_V, const SamplingSettings& sampling, double uniform,
                 double& logprob) {
  const std::span<const Real> row(logits_V.const_data_ptr<Real>(),
                                  static_cast<std::size_t>(logits_V.size(0)));
  const data::Token token = SampleToken<Real>(row, sampling, uniform);
  logprob += LogProbability<Real>(row, token);
  return token;
}

}  // namespace

std::vector<GeneratedPrompt> Generate(const Decoder& model, const std::vector<data::Group>& prompts,
                                      const GenerateSettings& settings) {
  using Clock = std::chrono::steady_clock;
  std::vector<GeneratedPrompt> results(prompts.size());
  std::vector<Clock::time_point> start(prompts.size());
  const auto seconds_since_start = [&start](std::size_t prompt) {
    return std::chrono::duration<double>(Clock::now() - start[prompt]).count();
  };
  if (prompts.empty() || settings.responses == 0) return results;
  const ModelConfig& config = model.Config();

  // One prefill a prompt, for all its tails.
  std::vector<Prefill> prefills;
  std::vector<at::Tensor> first_logits;
  std::vector<Live> live;
  std::int64_t longest = 0;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const std::vector<int> numbers = ChoosePossibilities(prompts[p], settings);
    for (const int number : numbers) {
      const auto tokens = static_cast<std::int64_t>(
          prompts[p].prompt_tokens.size() + prompts[p].tails[static_cast<std::size_t>(number)].size());
      if (tokens + settings.max_new_tokens > config.max_position_embeddings) {
        throw data::DataError("prompt '" + prompts[p].id + "': " + std::to_string(tokens) + " tokens and " +
                              std::to_string(settings.max_new_tokens) +
                              " new ones exceed the model's context of " +
                              std::to_string(config.max_position_embeddings) +
                              "; shorten the prompt or lower --max-new-tokens");
      }
      longest = std::max(longest, tokens);
    }
    start[p] = Clock::now();
    prefills.push_back(RunPrefill(model, prompts[p], numbers));
    results[p].token_forwards = prefills.back().k_NGD.front().size(0);
    first_logits.push_back(prefills.back().logits_LV);
    for (std::int64_t i = 0; i < settings.responses; ++i) {
      GeneratedResponse response;
      response.index = i;
      response.possibility = numbers[static_cast<std::size_t>(i)];
      results[p].responses.push_back(std::move(response));
      live.push_back({p, i,
                      data::MixKey(settings.seed, data::Purpose::kSampling, data::HashName(prompts[p].id),
                                   static_cast<std::uint64_t>(i))});
    }
  }

  KeyValueCache cache(model, static_cast<std::int64_t>(live.size()), longest + settings.max_new_tokens);
  for (std::size_t row = 0; row < live.size(); ++row) {
    cache.Start(static_cast<std::int64_t>(row), prefills[live[row].prompt],
                static_cast<std::size_t>(live[row].index));
  }
  prefills.clear();

  at::Tensor logits_RV = at::cat(first_logits, 0);
  for (std::int64_t t = 0; t < settings.max_new_tokens && !live.empty(); ++t) {
    const at::Tensor host_RV = logits_RV.cpu().contiguous();
    std::vector<Live> next;
    std::vector<std::int64_t> kept, tokens;
    for (std::size_t row = 0; row < live.size(); ++row) {
      GeneratedPrompt& result = results[live[row].prompt];
      GeneratedResponse& response = result.responses[static_cast<std::size_t>(live[row].index)];
      // Draw t of the response's own stream, whatever else is decoded beside it.
      data::CounterRandom random{live[row].key, static_cast<std::uint64_t>(t)};
      const at::Tensor logits_V = host_RV[static_cast<std::int64_t>(row)];
      const double uniform = random.Uniform();
      const data::Token token = host_RV.scalar_type() == at::kDouble
                                    ? Draw<double>(logits_V, settings.sampling, uniform, response.logprob)
                                    : Draw<float>(logits_V, settings.sampling, uniform, response.logprob);
      if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) !=
          config.eos_token_ids.end()) {
        response.finished = true;
        response.seconds = result.seconds = seconds_since_start(live[row].prompt);
        continue;
      }
      response.tokens.push_back(token);
      if (t + 1 == settings.max_new_tokens) {
        response.seconds = result.seconds = seconds_since_start(live[row].prompt);
        continue;
      }
      next.push_back(live[row]);
      kept.push_back(static_cast<std::int64_t>(row));
      tokens.push_back(token);
    }
    if (next.empty()) break;
    for (const Live& response : next) {
      GeneratedPrompt& result = results[response.prompt];
      result.decode_steps = ++result.responses[static_cast<std::size_t>(response.index)].steps;
      ++result.token_forwards;
    }
    if (next.size() < live.size()) cache.Keep(kept);
    live = std::move(next);
    logits_RV = cache.Step(model, at::tensor(tokens, at::kLong).to(model.Device()));
  }
  return results;
}

}  // namespace plural::trainer
