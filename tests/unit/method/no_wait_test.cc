// A step must not wait for a GPU before it has sent it everything, and nothing may take a GPU's tensor for
// the host's. Both are shown on the meta device, which has no values.
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/support/every_part.h"
#include "tests/unit/support/meta_device.h"
#include "tests/unit/support/naive_model.h"
#include "tests/unit/support/random_groups.h"
#include "trainer/method/evaluation.h"
#include "trainer/method/latent_unit.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

constexpr std::int64_t kLatentCount = 3;

// With every part, also for attention in plain operators: no kernel knows this device.
Decoder ModelWithoutValues() {
  ModelConfig config = SmallConfig();
  AddEveryPart(config);
  Decoder model(config, at::kFloat, at::kMeta);
  model.AddAdapter({.rank = 3, .alpha = 5.0, .dropout = 0.2, .targets = {"q_proj", "o_proj", "lm_head"}}, 2);
  return model;
}

TEST(Step, AsksTheDeviceForNoValue) {
  const MetaDevice device(MetaDevice::Reads::kThrow);
  const Decoder model = ModelWithoutValues();
  data::RowPass pass = RandomTreePass(40, 3);
  for (std::int32_t row = 0; row < 40; ++row) {
    pass.edges.push_back({row, row % 29, 0.5, 0.5});
    pass.path_key.push_back(static_cast<std::uint64_t>(row));
  }
  for (const bool recompute : {false, true}) {
    const PassResult result =
        RunPass(model, pass, {.dropout_key = 1, .recompute = recompute}, {.chunk_rows = 7});
    result.loss.backward();
    EXPECT_TRUE(result.loss.is_meta());
    for (const auto& [name, tensor] : model.TrainableParameters())
      EXPECT_TRUE(tensor.grad().defined()) << name;
    EXPECT_ANY_THROW(ReadFigures(pass, result.values));
  }
}

TEST(LatentStep, AsksTheDeviceForNoValue) {
  Decoder model = ModelWithoutValues();
  {  // the first latents are made of the embeddings' values
    const MetaDevice device(MetaDevice::Reads::kZeros);
    model.AddLatents(kLatentCount, 1);
  }
  const MetaDevice device(MetaDevice::Reads::kThrow);
  for (const LatentEstimator estimator : {LatentEstimator::kGumbelSoft, LatentEstimator::kExact}) {
    data::testing::RandomCase example = data::testing::MakeRandomCase(3, "cvf");
    example.settings.latent_branches = estimator == LatentEstimator::kExact ? kLatentCount : 0;
    const std::vector<data::LabelledGroup> groups = {
        Label(*example.method, example.group, example.settings, /*epoch=*/0)};
    const std::vector<data::RowPass> passes = data::PackGroups(groups, {}, 1.0);
    const LatentUnitPasses unit_passes = LatentUnitsOf(passes).at(0);
    LatentUnit unit(model, unit_passes.recognition, groups, 1.0,
                    {.latents = kLatentCount, .estimator = estimator},
                    /*dropout_key=*/1);
    for (const data::RowPass& pass : unit_passes.generation) unit.Run(pass).backward();
    unit.FinishBackward();
    for (const auto& [name, tensor] : model.TrainableParameters())
      EXPECT_TRUE(tensor.grad().defined()) << name;
    EXPECT_ANY_THROW(LatentUnit::ReadFigures({&unit, 1}));
  }
}

TEST(Evaluation, ReadsTheDeviceByCopiesAlone) {
  const MetaDevice device(MetaDevice::Reads::kZeros);
  Decoder model = ModelWithoutValues();
  const data::Group group = data::testing::MakeRandomCase(5, "cvf").group;
  const GroupFigures figures = EvaluateGroup(model, group, /*targets=*/false, {});
  EXPECT_EQ(figures.sequences, static_cast<std::int64_t>(group.responses.size()));
  EXPECT_EQ(figures.logprob_nats, 0.0);  // of a host's copy, which is zeros
  EXPECT_EQ(TokenKl(model.WithoutAdapter(), model, group, {}), 0.0);
  if (group.Possibilities() > 0 && group.responses.size() > 1) {
    EXPECT_EQ(EvaluatePossibilities(model, group, {})->information_nats, 0.0);
  }
  model.AddLatents(kLatentCount, 1);
  EXPECT_EQ(RecognizeLatents(model, group, {}), std::vector<int>(group.responses.size(), 1));
}

}  // namespace
}  // namespace plural::trainer
