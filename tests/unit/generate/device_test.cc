// Every way of generating takes a model on another device than the host, and reads it by copies alone: on the
// meta device, whose copies on the host are zeros here, so that all tokens are equally likely.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/support/every_part.h"
#include "tests/unit/support/meta_device.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/generate/diverse_beam_search.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/key_value_cache.h"
#include "trainer/generate/rerank.h"
#include "trainer/generate/streaming.h"

namespace plural::trainer {
namespace {

using testing::MetaDevice;

constexpr std::int64_t kTokens = 6;

class OnAnotherDevice : public ::testing::Test {
 protected:
  OnAnotherDevice() {
    ModelConfig config = testing::SmallConfig();
    config.sliding_window = 4;
    testing::AddEveryPart(config);  // no attention kernel knows this device
    model_.emplace(config, at::kFloat, at::kMeta);
    model_->AddAdapter({.rank = 3, .alpha = 5.0, .targets = {"q_proj", "lm_head"}}, 2);
    for (const auto& [name, tensor] : model_->TrainableParameters()) tensor.set_requires_grad(false);
    prompts_.resize(2);
    for (std::size_t p = 0; p < prompts_.size(); ++p) {
      prompts_[p].id = "prompt-" + std::to_string(p);
      prompts_[p].prompt_tokens = {1, 7, static_cast<data::Token>(p)};
      prompts_[p].tails = {{9}, {4, 9}, {5, 9}};
    }
  }

  // All responses there, and each token's log p.
  void ExpectWhole(const std::vector<GeneratedPrompt>& prompts, std::size_t responses, double log_p) {
    ASSERT_EQ(prompts.size(), prompts_.size());
    for (const GeneratedPrompt& prompt : prompts) {
      ASSERT_EQ(prompt.responses.size(), responses);
      for (const GeneratedResponse& response : prompt.responses) {
        EXPECT_EQ(response.tokens.size(), static_cast<std::size_t>(kTokens));
        EXPECT_NEAR(response.logprob, kTokens * log_p, 1e-4);
      }
    }
  }
  // Of logits that are equal.
  double Uniform() const { return -std::log(static_cast<double>(model_->Config().vocab_size)); }

  const MetaDevice device_{MetaDevice::Reads::kZeros};
  std::optional<Decoder> model_;
  std::vector<data::Group> prompts_;
};

TEST_F(OnAnotherDevice, Samples) {
  GenerateSettings settings{.responses = 2, .max_new_tokens = kTokens, .policy = PossibilityPolicy::kFirst};
  ExpectWhole(Generate(*model_, prompts_, settings, /*rows=*/3), 2, Uniform());
  settings.sampling = {.temperature = 0.0};
  ExpectWhole(Generate(*model_, prompts_, settings), 2, Uniform());
}

TEST_F(OnAnotherDevice, SamplesBehindLatents) {
  model_->AddLatents(3, 1);
  const GenerateSettings settings{
      .max_new_tokens = kTokens, .latent_policy = LatentPolicy::kGiven, .latents = {3, 1, 3}};
  ExpectWhole(Generate(*model_, prompts_, settings), 3, Uniform());
}

TEST_F(OnAnotherDevice, SearchesWithBeams) {
  // The host reads log p, whose copy is zeros.
  ExpectWhole(GenerateDiverseBeams(*model_, prompts_, {.beams = 4, .groups = 2, .max_new_tokens = kTokens}),
              4, 0.0);
}

TEST_F(OnAnotherDevice, Rates) {
  data::Group question = prompts_[0];
  for (data::Token rating = 0; rating < 10; ++rating)
    question.responses.push_back({{12 + rating, 3}, 1.0, {0, 0}});
  for (const Rating& rating : RateResponses(model_->WithoutAdapter(), question, {{5, 6}, {5}})) {
    EXPECT_NEAR(rating.expected, 5.5, 1e-12);
  }
}

TEST_F(OnAnotherDevice, AnswersAStream) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const std::string request = "{\"id\": 1, \"prompt_tokens\": [1, 2, 3]}\n";
  ASSERT_EQ(write(ends[1], request.data(), request.size()), static_cast<ssize_t>(request.size()));
  close(ends[1]);
  std::ostringstream output;
  AnswerStream(*model_, {.responses = 2, .max_new_tokens = kTokens}, kDefaultRows, nullptr, ends[0], output);
  close(ends[0]);
  EXPECT_EQ(nlohmann::json::parse(output.str())["responses"].size(), 2U);
}

// Attention without a cap takes another operator; no prompt can be read with it on this device.
TEST_F(OnAnotherDevice, StepsWithoutASoftCap) {
  ModelConfig config = testing::SmallConfig();
  config.sliding_window = 4;
  const Decoder model(config, at::kBFloat16, at::kMeta);
  Prefill prefill;
  const auto options = at::TensorOptions().dtype(at::kBFloat16).device(at::kMeta);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    prefill.k_NGD.push_back(at::empty({5, config.num_key_value_heads, config.head_dim}, options));
    prefill.v_NGD.push_back(at::empty_like(prefill.k_NGD.back()));
  }
  prefill.path = {{0, 1, 2, 3, 4}, {0, 1}};
  KeyValueCache cache(model, 2, 4);
  cache.Start(0, prefill, 0);
  cache.Start(1, prefill, 1);
  cache.Keep({0, 1, 1});
  const std::vector<std::int64_t> tokens(3, 1);
  for (int step = 0; step < 40; ++step) {  // past the slots that it begins with
    const at::Tensor logits = cache.Step(model, tokens);
    EXPECT_TRUE(logits.is_meta());
    EXPECT_EQ(logits.sizes(), (std::vector<std::int64_t>{3, config.vocab_size}));
  }
}

}  // namespace
}  // namespace plural::trainer
