#include "trainer/generate/choices.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "data/error.h"
#include "data/random.h"
#include "trainer/base/error.h"
#include "trainer/generate/generator.h"
#include "trainer/model/latents.h"

namespace plural::trainer {
namespace {

std::vector<int> FirstNumbers(std::int64_t count) {
  std::vector<int> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 1);
  return numbers;
}

// More answers than numbers are possible: a list of numbers is used in turn.
[[noreturn]] void RefuseNumbers(const data::Group& prompt, const GenerateSettings& settings,
                                const std::string& asked) {
  const int numbers = prompt.Possibilities();
  const std::string start = "prompt '" + prompt.id + "': " + asked;
  if (numbers == 0) {
    throw data::DataError(start +
                          ", and the corpus was prepared without numbers; leave --possibilities out, or "
                          "prepare the corpus with as many --possibilities as the model was trained with");
  }
  if (settings.policy == PossibilityPolicy::kGiven) {
    throw data::DataError(start + ", the corpus has 1.." + std::to_string(numbers) +
                          "; leave out what is beyond");
  }
  std::string all;
  for (const int number : FirstNumbers(numbers)) all += (all.empty() ? "" : ",") + std::to_string(number);
  throw data::DataError(start + ", the corpus has 1.." + std::to_string(numbers) + "; ask for at most " +
                        std::to_string(numbers) +
                        " responses, or give a list, which is used in turn: --possibilities " + all);
}

std::vector<int> ChoosePossibilities(const data::Group& prompt, const GenerateSettings& settings) {
  const auto responses = static_cast<std::size_t>(settings.responses);
  std::vector<int> numbers(responses, 0);
  switch (settings.policy) {
    case PossibilityPolicy::kNone:
      return numbers;
    case PossibilityPolicy::kFirst:
      numbers = FirstNumbers(settings.responses);
      break;
    case PossibilityPolicy::kSample:
      if (settings.responses <= prompt.Possibilities()) {
        numbers = data::SampleWithoutReplacement(
            {data::MixKey(settings.seed, data::Purpose::kPossibilities, data::HashName(prompt.id))},
            prompt.Possibilities(), static_cast<int>(settings.responses));
      } else {
        RefuseNumbers(prompt, settings,
                      std::to_string(settings.responses) + " different numbers are asked for");
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
    RefuseNumbers(prompt, settings, "possibility number " + std::to_string(largest) + " is asked for");
  }
  return numbers;
}

std::vector<int> ChooseLatents(const data::Group& prompt, const GenerateSettings& settings, int count) {
  if (settings.latent_policy == LatentPolicy::kGiven) return settings.latents;
  return data::SampleWithoutReplacement(
      {data::MixKey(settings.seed, data::Purpose::kLatents, data::HashName(prompt.id))}, count,
      static_cast<int>(settings.responses));
}

}  // namespace

void ResolveLatents(const Decoder& model, GenerateSettings& settings) {
  const Latents* heads = model.LatentHeads();
  if (settings.latent_policy == LatentPolicy::kNone) {
    if (heads == nullptr) return;
    throw ExitError(ExitCode::kBadData,
                    "latents: none is asked for, and the model was trained with " +
                        std::to_string(heads->Count()) +
                        " (method cvf), one before every response; ask for all or sample");
  }
  if (heads == nullptr) {
    throw ExitError(ExitCode::kBadData,
                    "latents: the model has none; give an adapter that was trained with method cvf");
  }
  const std::int64_t count = heads->Count();
  if (settings.latent_policy == LatentPolicy::kAll) {
    settings.latent_policy = LatentPolicy::kGiven;
    settings.latents = FirstNumbers(count);
  }
  if (settings.latent_policy == LatentPolicy::kGiven) {
    settings.responses = static_cast<std::int64_t>(settings.latents.size());
    const int largest = *std::max_element(settings.latents.begin(), settings.latents.end());
    if (largest > count) {
      throw ExitError(ExitCode::kBadData, "latents: " + std::to_string(largest) +
                                              " is asked for, the adapter has 1.." + std::to_string(count));
    }
  } else if (settings.responses > count) {
    throw ExitError(ExitCode::kBadData, "latents: " + std::to_string(settings.responses) +
                                            " responses need as many different latents, the adapter has " +
                                            std::to_string(count) + "; ask for fewer responses");
  }
}

Choices Choose(const data::Group& prompt, const GenerateSettings& asked, const Decoder& model) {
  GenerateSettings settings = asked;
  ResolveLatents(model, settings);
  Choices choices;
  if (settings.latent_policy == LatentPolicy::kNone) {
    choices.possibilities = ChoosePossibilities(prompt, settings);
    choices.latents.assign(choices.possibilities.size(), 0);
  } else {
    choices.latents = ChooseLatents(prompt, settings, static_cast<int>(model.LatentHeads()->Count()));
    choices.possibilities.assign(choices.latents.size(), 0);
  }

  std::size_t longest = 0;
  for (const int number : choices.possibilities) {
    longest = std::max(longest, prompt.tails[static_cast<std::size_t>(number)].size());
  }
  const bool latent = settings.latent_policy != LatentPolicy::kNone;  // takes a position
  const auto tokens = static_cast<std::int64_t>(prompt.prompt_tokens.size() + longest + (latent ? 1 : 0));
  const std::int64_t context = model.Config().max_position_embeddings;
  if (tokens + settings.max_new_tokens > context) {
    throw data::DataError("prompt '" + prompt.id + "': " + std::to_string(tokens) + " tokens and " +
                          std::to_string(settings.max_new_tokens) +
                          " new ones exceed the model's context of " + std::to_string(context) +
                          "; shorten the prompt or lower --max-new-tokens");
  }
  return choices;
}

}  // namespace plural::trainer
