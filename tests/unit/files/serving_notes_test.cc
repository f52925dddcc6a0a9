#include "trainer/files/serving_notes.h"

#include <gtest/gtest.h>

namespace plural::trainer {
namespace {

TEST(ServingNotes, NameTheProgramThatWillNotServeThePart) {
  ModelConfig config;
  config.model_type = "mistral";
  EXPECT_TRUE(ServingNotes(config, {.targets = {"q_proj", "lm_head"}}).empty());

  config.tie_word_embeddings = true;
  EXPECT_TRUE(ServingNotes(config, {.targets = {"q_proj"}}).empty());
  const auto tied = ServingNotes(config, {.targets = {"lm_head"}});
  ASSERT_EQ(tied.size(), 1U);
  EXPECT_NE(tied[0].find("llama.cpp"), std::string::npos);

  config.model_type = "qwen2";
  config.tie_word_embeddings = false;
  const auto head = ServingNotes(config, {.targets = {"lm_head"}});
  ASSERT_EQ(head.size(), 1U);
  EXPECT_NE(head[0].find("vLLM"), std::string::npos);
  EXPECT_NE(head[0].find("qwen2"), std::string::npos);

  EXPECT_TRUE(ServingNotes(config, {.rank = 512, .targets = {"q_proj"}}).empty());
  EXPECT_EQ(ServingNotes(config, {.rank = 513, .targets = {"q_proj"}}).size(), 1U);
}

}  // namespace
}  // namespace plural::trainer
