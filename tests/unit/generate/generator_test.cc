// Generation against the plainest decoder there is: the whole sequence through the model at every token.

#include "trainer/generate/generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <span>

#include "data/error.h"
#include "data/random.h"
#include "tests/unit/support/every_part.h"
#include "trainer/base/error.h"
#include "trainer/model/latents.h"

namespace plural::trainer {
namespace {

ModelConfig TinyConfig() {
  ModelConfig config;
  config.model_type = "llama";
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 23;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.7;  // peaked distributions, so that a wrong logit changes a token
  config.eos_token_ids = {2};
  return config;
}

Decoder TinyModel(const ModelConfig& config) {
  Decoder model(config, at::kDouble, at::kCPU);
  model.InitializeRandom(7);
  return model;
}

std::vector<data::Group> ThreePrompts() {
  std::vector<data::Group> prompts(3);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    prompts[p].id = "prompt-" + std::to_string(p);
    for (std::size_t t = 0; t < 3 + 4 * p; ++t) {
      prompts[p].prompt_tokens.push_back(static_cast<data::Token>((5 * p + 3 * t + 2) % 23));
    }
    prompts[p].tails = {{9}, {4, 5, 9}, {4, 6, 9}, {4, 5, 7, 9}};
  }
  return prompts;
}

// The token at `latent_at` is a placeholder of latent `latent`, if there is one.
at::Tensor LastLogits(const Decoder& model, const std::vector<data::Token>& tokens, std::size_t latent_at,
                      int latent) {
  data::RowPass pass;
  pass.length = static_cast<std::int64_t>(tokens.size());
  pass.token = tokens;
  for (std::int32_t t = 0; t < pass.length; ++t) pass.position.push_back(t);
  pass.rows = pass.length;
  const auto attention = MakePassAttention(pass, model.Config().Attention(), model.DType(), model.Device());
  at::Tensor embedding = model.Embed(at::tensor(tokens, at::kInt).to(at::kLong));
  if (latent > 0) embedding[static_cast<std::int64_t>(latent_at)] = model.LatentHeads()->table_KE[latent - 1];
  const at::Tensor hidden =
      model.Hidden(embedding, at::tensor(pass.position, at::kInt).to(at::kLong), *attention);
  return model.Logits(hidden.narrow(0, pass.length - 1, 1))[0].contiguous();
}

GeneratedResponse Naive(const Decoder& model, const data::Group& prompt, int number, std::int64_t index,
                        const GenerateSettings& settings, int latent = 0) {
  std::vector<data::Token> tokens = prompt.prompt_tokens;
  const auto& tail = prompt.tails[static_cast<std::size_t>(number)];
  tokens.insert(tokens.end(), tail.begin(), tail.end());
  const std::size_t latent_at = tokens.size();
  if (latent > 0) tokens.push_back(0);
  data::CounterRandom random{data::MixKey(settings.seed, data::Purpose::kSampling, data::HashName(prompt.id),
                                          static_cast<std::uint64_t>(index))};
  GeneratedResponse response;
  for (std::int64_t t = 0; t < settings.max_new_tokens; ++t) {
    const at::Tensor logits = LastLogits(model, tokens, latent_at, latent);
    const std::span<const double> row(logits.const_data_ptr<double>(),
                                      static_cast<std::size_t>(logits.numel()));
    TokenSampler<double> sampler;
    sampler.Read(row, settings.sampling);
    const data::Token token = sampler.Draw(random.Uniform());
    response.logprob += sampler.LogProbability(token);
    if (std::ranges::count(model.Config().eos_token_ids, token) > 0) {
      response.finished = true;
      break;
    }
    tokens.push_back(token);
    response.tokens.push_back(token);
  }
  return response;
}

void ExpectEqualsNaive(const ModelConfig& config, const GenerateSettings& settings, bool some_end = true) {
  const c10::NoGradGuard no_grad;
  const Decoder model = TinyModel(config);
  const auto prompts = ThreePrompts();
  const auto results = Generate(model, prompts, settings);
  ASSERT_EQ(results.size(), prompts.size());
  bool finished = false, cut = false;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    ASSERT_EQ(static_cast<std::int64_t>(results[p].responses.size()), settings.responses);
    for (const GeneratedResponse& response : results[p].responses) {
      const GeneratedResponse expected =
          Naive(model, prompts[p], response.possibility, response.index, settings);
      EXPECT_EQ(response.tokens, expected.tokens) << prompts[p].id << " response " << response.index;
      EXPECT_EQ(response.finished, expected.finished);
      // Up to 24 sums of about 40 fp64 roundings each on values of size about 10.
      EXPECT_NEAR(response.logprob, expected.logprob, 1e-11);
      finished |= response.finished;
      cut |= !response.finished;
    }
  }
  EXPECT_TRUE((finished || !some_end) && cut)
      << "the case must cover responses that end and responses that are cut";
}

TEST(Generator, EqualsDecodingWithoutCache) {
  ExpectEqualsNaive(TinyConfig(), {.responses = 3,
                                   .max_new_tokens = 24,
                                   .sampling = {.temperature = 1.2},
                                   .policy = PossibilityPolicy::kSample,
                                   .seed = 5});
}

TEST(Generator, EqualsDecodingWithoutCacheWithSlidingWindow) {
  ModelConfig config = TinyConfig();
  config.sliding_window = 5;
  ExpectEqualsNaive(config, {.responses = 3,
                             .max_new_tokens = 24,
                             .sampling = {.temperature = 1.2, .top_k = 9, .top_p = 0.95},
                             .policy = PossibilityPolicy::kNone,
                             .seed = 3});
}

TEST(Generator, EqualsDecodingWithoutCacheWithWhatFamiliesAdd) {
  for (const bool fused : {false, true}) {
    ModelConfig config = TinyConfig();
    config.sliding_window = 5;
    config.fused_projections = fused;
    testing::AddEveryPart(config);
    ExpectEqualsNaive(config, {.responses = 3, .max_new_tokens = 24, .seed = 3});
  }
}

TEST(Generator, AnswersDoNotDependOnTheBatch) {
  const Decoder model = TinyModel(TinyConfig());
  const GenerateSettings settings{.responses = 2, .max_new_tokens = 12, .policy = PossibilityPolicy::kFirst};
  const auto prompts = ThreePrompts();
  const auto together = Generate(model, prompts, settings);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const auto alone = Generate(model, {prompts[p]}, settings);
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_EQ(alone[0].responses[i].tokens, together[p].responses[i].tokens);
  }
  EXPECT_NE(together[0].responses[0].tokens, together[0].responses[1].tokens);
}

// What a caller sees of a response, bits included.
void ExpectSame(const GeneratedPrompt& a, const GeneratedPrompt& b) {
  ASSERT_EQ(a.responses.size(), b.responses.size());
  for (std::size_t i = 0; i < a.responses.size(); ++i) {
    EXPECT_EQ(a.responses[i].tokens, b.responses[i].tokens) << "response " << i;
    EXPECT_EQ(a.responses[i].finished, b.responses[i].finished);
    EXPECT_EQ(a.responses[i].steps, b.responses[i].steps);
    EXPECT_EQ(a.responses[i].logprob, b.responses[i].logprob);  // to the bit
  }
}

// Many responses of few prompts through few rows: histories are shared, split, wait and refill.
TEST(Generator, RowsChangeNothing) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    Decoder model(TinyConfig(), dtype, at::kCPU);
    model.InitializeRandom(7);
    const GenerateSettings settings{.responses = 40, .max_new_tokens = 10, .sampling = {.temperature = 0.8}};
    const auto prompts = ThreePrompts();
    const auto expected = Generate(model, prompts, settings, 1000);
    for (const std::int64_t rows : {1, 7, 64}) {
      const auto results = Generate(model, prompts, settings, rows);
      for (std::size_t p = 0; p < prompts.size(); ++p) ExpectSame(results[p], expected[p]);
    }
  }
}

TEST(Generator, SharedHistoriesAreDecodedOnce) {
  const Decoder model = TinyModel(TinyConfig());
  const auto prompts = ThreePrompts();
  const GenerateSettings settings{.responses = 200, .max_new_tokens = 12, .sampling = {.temperature = 0.3}};
  const GeneratedPrompt answer = Generate(model, {prompts[1]}, settings)[0];
  // As many rows as different histories: every proper prefix of a response, the empty one left to the
  // prefill.
  std::set<std::vector<data::Token>> histories;
  std::int64_t alone = 0;
  for (const GeneratedResponse& response : answer.responses) {
    const std::size_t fed = response.finished ? response.tokens.size() : response.tokens.size() - 1;
    EXPECT_EQ(response.steps, static_cast<std::int64_t>(fed));
    for (std::size_t t = 1; t <= fed; ++t) {
      histories.emplace(response.tokens.begin(), response.tokens.begin() + static_cast<std::ptrdiff_t>(t));
    }
    alone += static_cast<std::int64_t>(fed);
  }
  const auto prefill =
      static_cast<std::int64_t>(prompts[1].prompt_tokens.size() + prompts[1].tails[0].size());
  EXPECT_EQ(answer.token_forwards, prefill + static_cast<std::int64_t>(histories.size()));
  EXPECT_LT(answer.token_forwards - prefill, alone / 2) << "the case must share histories";
  for (const GeneratedResponse& response : answer.responses) {
    EXPECT_EQ(response.tokens, Naive(model, prompts[1], 0, response.index, settings).tokens);
  }
}

TEST(Generator, GreedyEqualsDecodingWithoutCache) {
  ExpectEqualsNaive(TinyConfig(),
                    {.responses = 3,
                     .max_new_tokens = 24,
                     .sampling = {.temperature = 0.0},
                     .policy = PossibilityPolicy::kFirst},
                    /*some_end=*/false);
}

TEST(Generator, MinNewTokensKeepsResponsesFromEnding) {
  ModelConfig config = TinyConfig();
  config.eos_token_ids = {2, 5, 7, 11, 13};
  const Decoder model = TinyModel(config);
  const GenerateSettings settings{.responses = 30, .max_new_tokens = 12, .min_new_tokens = 5};
  std::size_t shortest = 100;
  for (const GeneratedPrompt& answer : Generate(model, ThreePrompts(), settings)) {
    for (const GeneratedResponse& response : answer.responses) {
      shortest = std::min(shortest, response.tokens.size());
    }
  }
  EXPECT_EQ(shortest, 5U) << "none ends before, some end as soon as they may";
}

TEST(Generator, PromptsAreTakenWhileOthersAreDecoded) {
  const Decoder model = TinyModel(TinyConfig());
  const auto prompts = ThreePrompts();
  const GenerateSettings settings{.responses = 2, .max_new_tokens = 12};
  Generator generator(model, 4);
  std::vector<GeneratedPrompt> results(prompts.size());
  std::size_t added = 0;
  while (added < prompts.size() || !generator.Idle()) {
    if (added < prompts.size()) {
      EXPECT_EQ(generator.Add(prompts[added], settings), static_cast<std::int64_t>(added));
      ++added;
    }
    for (auto& finished : generator.Step()) {
      results[static_cast<std::size_t>(finished.ticket)] = std::move(finished.prompt);
    }
  }
  const auto expected = Generate(model, prompts, settings);
  for (std::size_t p = 0; p < prompts.size(); ++p) ExpectSame(results[p], expected[p]);
}

// A latent takes the position behind the prompt; one response each.
TEST(Generator, LatentsStandBeforeTheResponse) {
  const c10::NoGradGuard no_grad;
  Decoder model = TinyModel(TinyConfig());
  model.AddLatents(4, 1);
  model.LatentHeads()->table_KE.normal_(0.0, 1.0, at::make_generator<at::CPUGeneratorImpl>(1));
  GenerateSettings settings{
      .max_new_tokens = 12, .latent_policy = LatentPolicy::kGiven, .latents = {3, 1, 3}};
  std::set<std::vector<data::Token>> different;
  const auto results = Generate(model, ThreePrompts(), settings, 2);
  for (std::size_t p = 0; p < results.size(); ++p) {
    ASSERT_EQ(results[p].responses.size(), 3U);
    for (const GeneratedResponse& response : results[p].responses) {
      EXPECT_EQ(response.latent, settings.latents[static_cast<std::size_t>(response.index)]);
      EXPECT_EQ(response.possibility, 0);
      const auto expected = Naive(model, ThreePrompts()[p], 0, response.index, settings, response.latent);
      EXPECT_EQ(response.tokens, expected.tokens);
      EXPECT_NEAR(response.logprob, expected.logprob, 1e-11);
      different.insert(response.tokens);
    }
  }
  EXPECT_GT(different.size(), 3U);

  const auto latents = [&](LatentPolicy policy) {
    settings.latent_policy = policy;
    settings.responses = 2;
    std::vector<int> result;
    const auto answers = Generate(model, {ThreePrompts()[0]}, settings);
    for (const GeneratedResponse& response : answers[0].responses) result.push_back(response.latent);
    return result;
  };
  EXPECT_EQ(latents(LatentPolicy::kAll), (std::vector<int>{1, 2, 3, 4}));
  const auto sampled = latents(LatentPolicy::kSample);
  ASSERT_EQ(sampled.size(), 2U);
  EXPECT_NE(sampled[0], sampled[1]);

  settings.latent_policy = LatentPolicy::kGiven;
  settings.latents = {5};
  EXPECT_THROW(Generate(model, ThreePrompts(), settings), ExitError);
  settings.latents = {1};
  EXPECT_THROW(Generate(TinyModel(TinyConfig()), ThreePrompts(), settings), ExitError);
  settings.max_new_tokens = 60;  // 3 + 1 prompt tokens fit, the latent does not
  EXPECT_NO_THROW(
      Generate(TinyModel(TinyConfig()), {ThreePrompts()[0]}, {.responses = 1, .max_new_tokens = 60}));
  EXPECT_THROW(Generate(model, {ThreePrompts()[0]}, settings), data::DataError);
}

TEST(Generator, RefusesLogitsThatAreNotFinite) {
  const Decoder model = TinyModel(TinyConfig());
  model.BaseParameters()[0].tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THROW(Generate(model, ThreePrompts(), {.responses = 1, .max_new_tokens = 8}), ExitError);
}

TEST(Generator, PossibilityPolicies) {
  const Decoder model = TinyModel(TinyConfig());
  const auto numbers = [&](GenerateSettings settings) {
    settings.max_new_tokens = 1;
    const auto responses = Generate(model, {ThreePrompts()[0]}, settings);
    std::vector<int> result;
    for (const auto& response : responses[0].responses) result.push_back(response.possibility);
    return result;
  };
  EXPECT_EQ(numbers({.responses = 2}), (std::vector<int>{0, 0}));
  EXPECT_EQ(numbers({.responses = 3, .policy = PossibilityPolicy::kFirst}), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(numbers({.responses = 3, .policy = PossibilityPolicy::kGiven, .possibilities = {3, 1}}),
            (std::vector<int>{3, 1, 3}));
  auto sampled = numbers({.responses = 3, .policy = PossibilityPolicy::kSample});
  std::sort(sampled.begin(), sampled.end());
  EXPECT_EQ(sampled, (std::vector<int>{1, 2, 3}));
}

TEST(Generator, RefusesWhatCannotBeAnswered) {
  const Decoder model = TinyModel(TinyConfig());
  EXPECT_THROW(Generate(model, ThreePrompts(), {.responses = 4, .policy = PossibilityPolicy::kSample}),
               data::DataError);
  EXPECT_THROW(Generate(model, ThreePrompts(),
                        {.responses = 1, .policy = PossibilityPolicy::kGiven, .possibilities = {4}}),
               data::DataError);
  EXPECT_THROW(Generate(model, ThreePrompts(), {.responses = 1, .max_new_tokens = 60}), data::DataError);
}

}  // namespace
}  // namespace plural::trainer
