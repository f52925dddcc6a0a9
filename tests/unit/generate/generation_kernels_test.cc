// Generation by kernels: emulated on the host it gives the host's answers, and on a device without values it
// sends one copy and waits for one a step.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/every_part.h"
#include "tests/unit/support/meta_device.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/generate/generator.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {
namespace {

ModelConfig ServedConfig(bool every_part) {
  ModelConfig config = testing::SmallConfig();
  config.head_dim = 8;
  config.sliding_window = 6;
  config.eos_token_ids = {2};
  if (every_part) testing::AddEveryPart(config);
  return config;
}

std::vector<data::Group> PromptsWithTails() {
  std::vector<data::Group> prompts(3);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    prompts[p].id = "prompt-" + std::to_string(p);
    for (std::size_t t = 0; t < 3 + 4 * p; ++t)
      prompts[p].prompt_tokens.push_back(static_cast<data::Token>((5 * p + 3 * t + 2) % 29));
    prompts[p].tails = {{9}, {4, 5, 9}, {4, 6, 9}};
  }
  return prompts;
}

std::vector<GeneratedPrompt> Answers(const Decoder& model, const GenerateSettings& settings,
                                     const CudaKernels* kernels) {
  Generator generator(model, 4, kernels);
  std::vector<GeneratedPrompt> answers(PromptsWithTails().size());
  for (const data::Group& prompt : PromptsWithTails()) generator.Add(prompt, settings);
  while (!generator.Idle()) {
    for (auto& finished : generator.Step())
      answers[static_cast<std::size_t>(finished.ticket)] = std::move(finished.prompt);
  }
  return answers;
}

// Tokens to the last, since a draw so near to an edge that roundings of attention move it is rare, and the
// seed is fixed.
TEST(GenerationByKernels, GivesTheHostsAnswers) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const std::vector<GenerateSettings> asked = {
      {.responses = 3, .max_new_tokens = 20},
      {.responses = 2, .max_new_tokens = 20, .sampling = {.temperature = 0.0}},
      {.responses = 2, .max_new_tokens = 12, .policy = PossibilityPolicy::kFirst, .min_new_tokens = 5},
      {.responses = 3, .max_new_tokens = 20, .sampling = {.temperature = 1.3, .top_k = 9, .top_p = 0.9}},
  };
  for (const bool every_part : {false, true}) {
    Decoder model(ServedConfig(every_part), at::kFloat, at::kCPU);
    model.InitializeRandom(7);
    for (const GenerateSettings& settings : asked) {
      const auto host = Answers(model, settings, nullptr), device = Answers(model, settings, &kernels);
      for (std::size_t p = 0; p < host.size(); ++p) {
        ASSERT_EQ(host[p].responses.size(), device[p].responses.size());
        for (std::size_t i = 0; i < host[p].responses.size(); ++i) {
          EXPECT_EQ(device[p].responses[i].tokens, host[p].responses[i].tokens) << p << " " << i;
          EXPECT_EQ(device[p].responses[i].finished, host[p].responses[i].finished);
          EXPECT_NEAR(device[p].responses[i].logprob, host[p].responses[i].logprob, 1e-3);
        }
      }
    }
  }
}

// A module whose kernels start and do nothing, as pointers of this device lead nowhere.
CudaKernels KernelsWithoutWork() {
  CudaKernels kernels;
  kernels.path_attention = [](const PathAttentionArguments&, void*) { return 0; };
  kernels.sample_rows = [](const SampleRowsArguments&, void*) { return 0; };
  return kernels;
}

struct StepCopies {
  testing::meta::Copies most;  // of a step
  std::int64_t steps = 0;
};

StepCopies CopiesOfSteps(const CudaKernels* kernels) {
  testing::MetaDevice device(testing::MetaDevice::Reads::kZeros);
  const Decoder model(ServedConfig(true), at::kFloat, at::kMeta);
  Generator generator(model, 8, kernels);
  for (const data::Group& prompt : PromptsWithTails())
    generator.Add(prompt, {.responses = 2, .max_new_tokens = 6, .policy = PossibilityPolicy::kFirst});
  generator.Step();  // starts all prompts
  StepCopies found;
  for (device.TakeCopies(); !generator.Idle(); ++found.steps) {
    generator.Step();
    const testing::meta::Copies copies = device.TakeCopies();
    found.most.to_device = std::max(found.most.to_device, copies.to_device);
    found.most.to_host = std::max(found.most.to_host, copies.to_host);
    found.most.bytes_to_host = std::max(found.most.bytes_to_host, copies.bytes_to_host);
  }
  return found;
}

TEST(GenerationByKernels, SendsOnceAndWaitsOnceAStep) {
  const CudaKernels kernels = KernelsWithoutWork();
  const StepCopies with = CopiesOfSteps(&kernels);
  EXPECT_GE(with.steps, 4);
  EXPECT_EQ(with.most.to_device, 1);
  EXPECT_EQ(with.most.to_host, 1);
  EXPECT_EQ(with.most.bytes_to_host, 6 * static_cast<std::int64_t>(sizeof(DrawnOnDevice)));  // six responses
  const StepCopies without = CopiesOfSteps(nullptr);
  EXPECT_EQ(without.most.to_device, 1);
  EXPECT_EQ(without.most.to_host, 1);
  EXPECT_GT(without.most.bytes_to_host, with.most.bytes_to_host);  // logits
}

}  // namespace
}  // namespace plural::trainer
