// GEM's loss and gradient against the vectors of docs/methods.md 3.7, through labelling, packing, head and
// loss.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/support/prescribed_decoder.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

using testing::Logits;
using testing::PrescribedDecoder;

// The documented figures have six decimals.
constexpr double kSixDecimals = 5.1e-7;
// Logits of a few units in fp64: some ten roundings.
constexpr double kRounding = 1e-13;

// One row that predicts token 1.
data::RowPass OneRow() {
  data::Group group;
  group.id = "one";
  group.prompt_tokens = {10};
  group.tails = {{}};
  group.responses = {data::testing::ResponseOf({1})};
  const data::LabelledGroup labelled = Label(MethodNamed("gem"), group, {.responses = 1}, 0);
  return data::PackGroups({&labelled, 1}, {}, 1.0).at(0);
}

ObjectiveSettings AtTemperature(double temperature) {
  ObjectiveSettings settings{.method = &MethodNamed("gem")};
  settings.values.own = OwnDefaults();
  settings.values.own["loss.temperature"] = temperature;
  return settings;
}

TEST(Gem, GivesTheDocumentedValueAndGradient) {
  PrescribedDecoder model(OneRow(), [](const auto&) { return Logits{2, 1, 0, -1}; });
  EXPECT_NEAR(model.Run(AtTemperature(0.7)).likelihood, 0.698052, kSixDecimals);
  const Logits gradient = model.Gradient(0, 4);
  const double wanted[] = {0.762865, -0.817179, 0.043813, 0.010500};
  for (std::size_t v = 0; v < 4; ++v) EXPECT_NEAR(gradient[v], wanted[v], kSixDecimals);
}

TEST(Gem, HasTheGradientOfCrossEntropyAtTemperatureOne) {
  PrescribedDecoder model(OneRow(), [](const auto&) { return Logits{2, 1, 0, -1}; });
  model.Run(AtTemperature(1.0));
  const Logits found = model.Gradient(0, 4);
  model.Run();
  const Logits wanted = model.Gradient(0, 4);
  for (std::size_t v = 0; v < 4; ++v) EXPECT_NEAR(found[v], wanted[v], kRounding);
}

TEST(Gem, ItsOwnDefaultIsTheKeys) { EXPECT_EQ(OwnDefaults().at("loss.temperature"), 0.7); }

}  // namespace
}  // namespace plural::trainer
