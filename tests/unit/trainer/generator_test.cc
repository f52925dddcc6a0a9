// Generation against the plainest decoder there is: the whole sequence through the model at every token.

#include "trainer/generate/generator.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "data/error.h"
#include "data/random.h"

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

std::vector<data::Group> Prompts() {
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

at::Tensor LastLogits(const Decoder& model, const std::vector<data::Token>& tokens) {
  data::RowPass pass;
  pass.length = static_cast<std::int64_t>(tokens.size());
  pass.token = tokens;
  for (std::int32_t t = 0; t < pass.length; ++t) pass.position.push_back(t);
  pass.rows = pass.length;
  const auto attention =
      MakePassAttention(pass, model.Config().sliding_window, model.DType(), model.Device());
  const at::Tensor hidden = model.Hidden(model.Embed(at::tensor(tokens, at::kInt).to(at::kLong)),
                                         at::tensor(pass.position, at::kInt).to(at::kLong), *attention);
  return model.Logits(hidden.narrow(0, pass.length - 1, 1))[0].contiguous();
}

GeneratedResponse Naive(const Decoder& model, const data::Group& prompt, int number, std::int64_t index,
                        const GenerateSettings& settings) {
  std::vector<data::Token> tokens = prompt.prompt_tokens;
  const auto& tail = prompt.tails[static_cast<std::size_t>(number)];
  tokens.insert(tokens.end(), tail.begin(), tail.end());
  data::CounterRandom random{data::MixKey(settings.seed, data::Purpose::kSampling, data::HashName(prompt.id),
                                          static_cast<std::uint64_t>(index))};
  GeneratedResponse response;
  for (std::int64_t t = 0; t < settings.max_new_tokens; ++t) {
    const at::Tensor logits = LastLogits(model, tokens);
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

void ExpectEqualsNaive(const ModelConfig& config, const GenerateSettings& settings) {
  const c10::NoGradGuard no_grad;
  const Decoder model = TinyModel(config);
  const auto prompts = Prompts();
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
  EXPECT_TRUE(finished && cut) << "the case must cover responses that end and responses that are cut";
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

TEST(Generator, AnswersDoNotDependOnTheBatch) {
  const Decoder model = TinyModel(TinyConfig());
  const GenerateSettings settings{.responses = 2, .max_new_tokens = 12, .policy = PossibilityPolicy::kFirst};
  const auto prompts = Prompts();
  const auto together = Generate(model, prompts, settings);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const auto alone = Generate(model, {prompts[p]}, settings);
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_EQ(alone[0].responses[i].tokens, together[p].responses[i].tokens);
  }
  EXPECT_NE(together[0].responses[0].tokens, together[0].responses[1].tokens);
}

TEST(Generator, PossibilityPolicies) {
  const Decoder model = TinyModel(TinyConfig());
  const auto numbers = [&](GenerateSettings settings) {
    settings.max_new_tokens = 1;
    const auto responses = Generate(model, {Prompts()[0]}, settings);
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
  EXPECT_THROW(Generate(model, Prompts(), {.responses = 4, .policy = PossibilityPolicy::kSample}),
               data::DataError);
  EXPECT_THROW(
      Generate(model, Prompts(), {.responses = 1, .policy = PossibilityPolicy::kGiven, .possibilities = {4}}),
      data::DataError);
  EXPECT_THROW(Generate(model, Prompts(), {.responses = 1, .max_new_tokens = 60}), data::DataError);
}

}  // namespace
}  // namespace plural::trainer
