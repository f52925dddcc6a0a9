#include "trainer/method/objective.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/support/naive_model.h"
#include "tests/unit/support/run_and_read.h"
#include "trainer/method/target_figures.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

Decoder MakeModel(bool tied = false, at::ScalarType dtype = at::kDouble) {
  Decoder model(SmallConfig(tied), dtype, at::kCPU);
  model.InitializeRandom(1);
  return model;
}

// A tree whose every inner row predicts its children (once a token), weights random, some of them 0; one
// "sequence" per five edges.
data::RowPass MakePass(std::int64_t rows, std::uint64_t key) {
  data::RowPass pass = RandomTreePass(rows, key);
  data::CounterRandom random{key};
  for (std::int32_t row = 0; row < rows; ++row) {
    for (std::int32_t e = 0; e < row % 3; ++e) {
      const bool positive = random.Below(2) == 0;
      const bool penalised = random.Below(3) == 0;
      pass.edges.push_back({row, static_cast<data::Token>((7 * row + 10 * e) % 29),
                            positive ? random.Uniform() : 0.0, penalised ? random.Uniform() : 0.0});
    }
  }
  pass.path_offset.push_back(0);
  for (std::int32_t e = 0; e < static_cast<std::int32_t>(pass.edges.size()); ++e) {
    pass.path.push_back(e);
    if (e % 5 == 4) {
      pass.path_offset.push_back(e + 1);
      pass.sequences.push_back({});
    }
  }
  return pass;
}

struct Naive {
  at::Tensor loss;
  double likelihood, unlikelihood;
  std::vector<double> log_p;  // of every edge
};

Naive NaivePass(const Decoder& model, const data::RowPass& pass, double clamp) {
  const Tensors tensors = NamedTensors(model);
  const double scale =
      model.Adapter() ? model.Adapter()->alpha / static_cast<double>(model.Adapter()->rank) : 0;
  const at::Tensor logits = NaiveLinear(tensors, "lm_head", NaiveHidden(model, pass), scale);
  const at::Tensor log_softmax = at::log_softmax(logits, 1);
  std::vector<std::int64_t> source, target;
  std::vector<double> likelihood, unlikelihood;
  for (const data::Edge& edge : pass.edges) {
    source.push_back(edge.source);
    target.push_back(edge.target);
    likelihood.push_back(edge.likelihood);
    unlikelihood.push_back(edge.unlikelihood);
  }
  const at::Tensor log_p = log_softmax.index({at::tensor(source), at::tensor(target)});
  const at::Tensor positive = -(at::tensor(likelihood, at::kDouble) * log_p).sum();
  const at::Tensor negative =
      -(at::tensor(unlikelihood, at::kDouble) * at::clamp_min(1.0 - log_p.exp(), clamp).log()).sum();
  Naive naive{positive + negative, positive.item<double>(), negative.item<double>(), {}};
  for (std::int64_t e = 0; e < log_p.size(0); ++e) naive.log_p.push_back(log_p[e].item<double>());
  return naive;
}

std::vector<at::Tensor> Gradients(const Decoder& model, const at::Tensor& loss) {
  std::vector<at::Tensor> parameters;
  for (const auto& [name, tensor] : model.TrainableParameters()) parameters.push_back(tensor);
  return torch::autograd::grad({loss}, parameters);
}

void ExpectEqualToNaive(const Decoder& model, const data::RowPass& pass) {
  const ReadPass found = RunAndRead(model, pass, {});
  const Naive wanted = NaivePass(model, pass, 1e-6);
  EXPECT_NEAR(found.loss.item<double>(), wanted.loss.item<double>(), 1e-11);
  EXPECT_NEAR(found.likelihood, wanted.likelihood, 1e-11);
  EXPECT_NEAR(found.unlikelihood, wanted.unlikelihood, 1e-11);
  ASSERT_EQ(found.sequence_log_p.size(), pass.sequences.size());
  for (std::size_t s = 0; s < found.sequence_log_p.size(); ++s) {
    double sum = 0.0;
    for (std::size_t e = 5 * s; e < 5 * s + 5; ++e) sum += wanted.log_p[e];
    EXPECT_NEAR(found.sequence_log_p[s], sum, 1e-11);
  }
  const auto found_gradients = Gradients(model, found.loss);
  const auto wanted_gradients = Gradients(model, wanted.loss);
  for (std::size_t i = 0; i < found_gradients.size(); ++i) {
    // The naive 1 - p loses digits down to 1e-16 / (1 - p), and p stays below 0.999 here.
    EXPECT_LT(RelativeError(found_gradients[i], wanted_gradients[i]), 1e-11)
        << model.TrainableParameters()[i].name;
  }
}

TEST(RunPass, FullWeightLossAndGradientsEqualNaiveOnes) {
  for (const bool tied : {false, true}) {
    Decoder model = MakeModel(tied);
    model.TrainBase();
    ExpectEqualToNaive(model, MakePass(40, 3));
  }
}

TEST(RunPass, AdapterLossAndGradientsEqualNaiveOnes) {
  for (const bool tied : {false, true}) {
    Decoder model = MakeModel(tied);
    model.AddAdapter({.rank = 3, .alpha = 5.0, .dropout = 0.0, .targets = {"q_proj", "v_proj", "lm_head"}},
                     2);
    FillAdapter(model, 5);
    ExpectEqualToNaive(model, MakePass(40, 3));
  }
}

TEST(RunPass, LeavingOutUnweightedEdgesChangesNoGradient) {
  Decoder model = MakeModel();
  model.TrainBase();
  const data::RowPass pass = MakePass(40, 3);
  const ReadPass all = RunAndRead(model, pass, {});
  const ReadPass weighted = RunAndRead(model, pass, {.weighted_edges_only = true});
  EXPECT_NEAR(weighted.loss.item<double>(), all.loss.item<double>(), 1e-12);
  EXPECT_TRUE(weighted.sequence_log_p.empty());
  const auto found = Gradients(model, weighted.loss), wanted = Gradients(model, all.loss);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_LT(RelativeError(found[i], wanted[i]), 1e-12);
}

TEST(RunPass, APassWithoutWeightedEdgesAddsZero) {
  Decoder model = MakeModel();
  model.TrainBase();
  data::RowPass pass = MakePass(10, 3);
  for (data::Edge& edge : pass.edges) edge.likelihood = edge.unlikelihood = 0.0;
  for (const bool weighted_only : {false, true}) {
    const ReadPass result = RunAndRead(model, pass, {.weighted_edges_only = weighted_only});
    EXPECT_EQ(result.loss.item<double>(), 0.0);
    for (const at::Tensor& gradient : Gradients(model, result.loss)) {
      EXPECT_EQ(gradient.abs().max().item<double>(), 0.0);
    }
  }
}

TEST(RunPass, TheClampCutsValueAndGradient) {
  // A tied model sees its own token: with a large norm weight the same token is all but certain.
  Decoder model = MakeModel();
  model.TrainBase();
  const Tensors tensors = NamedTensors(model);
  tensors.at("lm_head.weight").detach().zero_()[4].fill_(8.0);
  tensors.at("model.norm.weight").detach().zero_();
  tensors.at("model.norm.weight").detach().copy_(at::ones({20}, at::kDouble));
  data::RowPass pass = PlainPass(1, 3, 1);
  const at::Tensor probe = NaiveHidden(model, pass).sum(1);
  std::int32_t row = 0;
  while (row < 3 && probe[row].item<double>() * 8.0 < 20.0) ++row;
  if (row == 3) {  // the sign is the model's; turn it
    tensors.at("lm_head.weight").detach().neg_();
    row = 0;
    while (probe[row].item<double>() * -8.0 < 20.0) ++row;
  }
  pass.edges = {{row, 4, 0.0, 0.5}};
  const ReadPass clamped = RunAndRead(model, pass, {});
  EXPECT_NEAR(clamped.unlikelihood, 0.5 * 13.815510557964274, 1e-12);
  for (const at::Tensor& gradient : Gradients(model, clamped.loss)) {
    EXPECT_EQ(gradient.abs().max().item<double>(), 0.0);
  }
  ObjectiveSettings unclamped;
  unclamped.values.unlikelihood_clamp = 0.0;
  const ReadPass open = RunAndRead(model, pass, unclamped);
  EXPECT_GT(open.unlikelihood, clamped.unlikelihood);
  double largest = 0.0;
  for (const at::Tensor& gradient : Gradients(model, open.loss)) {
    largest = std::max(largest, gradient.abs().max().item<double>());
  }
  EXPECT_GT(largest, 0.01);
}

TEST(RunPass, SinglePrecisionFollowsDoublePrecision) {
  Decoder model = MakeModel();
  Decoder single = MakeModel(false, at::kFloat);
  model.TrainBase();
  single.TrainBase();
  const data::RowPass pass = MakePass(70, 3);
  const ReadPass found = RunAndRead(single, pass, {});
  const ReadPass wanted = RunAndRead(model, pass, {});
  // Rounding 2^-24 = 6e-8 of every one of some 30 operations in a row on the deepest path, and a condition
  // number of a few tens.
  EXPECT_NEAR(found.likelihood, wanted.likelihood, 1e-4 * wanted.likelihood);
  EXPECT_NEAR(found.unlikelihood, wanted.unlikelihood, 1e-4 * wanted.unlikelihood);
  const auto found_gradients = Gradients(single, found.loss),
             wanted_gradients = Gradients(model, wanted.loss);
  for (std::size_t i = 0; i < found_gradients.size(); ++i) {
    EXPECT_LT(RelativeError(found_gradients[i].to(at::kDouble), wanted_gradients[i]), 1e-4)
        << model.TrainableParameters()[i].name;
  }
}

TEST(ReadFigures, OfManyPassesAreThoseOfEach) {
  const Decoder model = MakeModel();
  const std::vector<data::RowPass> passes = {MakePass(40, 3), MakePass(12, 4), MakePass(25, 5)};
  std::vector<PassValues> values;
  for (const data::RowPass& pass : passes) {  // the second without values of its edges
    values.push_back(RunPass(model, pass, {.weighted_edges_only = values.size() == 1}).values);
  }
  const std::vector<PassFigures> together = ReadFigures(passes, values);
  ASSERT_EQ(together.size(), passes.size());
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const PassFigures alone = ReadFigures(passes[i], values[i]);
    EXPECT_EQ(together[i].terms[0], values[i].terms[0].item<double>());
    EXPECT_EQ(together[i].terms[1], values[i].terms[1].item<double>());
    EXPECT_EQ(together[i].terms, alone.terms);
    EXPECT_EQ(together[i].sequence_log_p, alone.sequence_log_p);
    EXPECT_EQ(together[i].sequence_log_p.empty(), i == 1);
  }
  EXPECT_TRUE(ReadFigures(std::span<const data::RowPass>(), {}).empty());
}

data::LabelledGroup Targets(const std::vector<double>& weights) {
  data::LabelledGroup group;
  for (const double weight : weights) {
    data::LabelledSequence sequence;
    sequence.target = weight;
    group.sequences.push_back(sequence);
  }
  return group;
}

TEST(FiguresOfTargets, GivesTheKnownValues) {
  std::vector<double> log_p;
  for (const double p : {.04, .04, .04, .04, .60, .04, .08, .08, .02, .02}) log_p.push_back(std::log(p));
  const TargetFigures uniform = FiguresOfTargets(Targets(std::vector<double>(10, 0.1)), log_p);
  EXPECT_NEAR(uniform.kl_nats, 0.645486, 5e-7);
  EXPECT_NEAR(uniform.cross_entropy_nats, 2.948071, 5e-7);
  EXPECT_NEAR(uniform.target_entropy_nats, std::log(10.0), 1e-12);
  EXPECT_NEAR(uniform.entropy_nats, 1.510868, 5e-7);
  EXPECT_NEAR(uniform.target_mass, 1.0, 1e-12);

  const std::vector<double> three = {-1.360627, -1.583770, -1.940445};
  const TargetFigures equal = FiguresOfTargets(Targets({1.0 / 3, 1.0 / 3, 1.0 / 3}), three);
  EXPECT_NEAR(equal.cross_entropy_nats, 1.628281, 1e-6);
  EXPECT_NEAR(equal.kl_nats, 0.529668, 1e-6);
  EXPECT_NEAR(equal.target_mass, 0.60534, 1e-5);
  const TargetFigures weighted = FiguresOfTargets(Targets({0.5, 0.25, 0.25}), three);
  EXPECT_NEAR(weighted.cross_entropy_nats, 1.561367, 1e-6);
  EXPECT_NEAR(weighted.kl_nats, 0.521646, 1e-6);
}

TEST(FiguresOfTargets, SaysInfiniteWhereATargetIsImpossible) {
  const double never = -std::numeric_limits<double>::infinity();
  const TargetFigures figures = FiguresOfTargets(Targets({0.5, 0.5}), {std::log(0.5), never});
  EXPECT_TRUE(std::isinf(figures.kl_nats));
  EXPECT_NEAR(figures.target_mass, 0.5, 1e-12);
  EXPECT_NEAR(figures.entropy_nats, 0.0, 1e-12);
  const TargetFigures unwanted = FiguresOfTargets(Targets({1.0, 0.0}), {std::log(0.5), never});
  EXPECT_NEAR(unwanted.kl_nats, std::log(2.0), 1e-12);
  EXPECT_THROW(FiguresOfTargets(Targets({1.0}), {0.0, 0.0}), std::logic_error);
}

}  // namespace
}  // namespace plural::trainer
