#include "trainer/model/decoder.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/support/naive_model.h"
#include "trainer/base/error.h"
#include "trainer/ops/pointwise.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

// Sums of at most 100 products through 3 layers, 2^-52 each, and a condition number of a few hundred.
constexpr double kRounding = 1e-12;

AdapterSettings EveryLinear() {
  return {
      .rank = 3,
      .alpha = 5.0,
      .dropout = 0.0,
      .targets = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}};
}

at::Tensor RunHidden(const Decoder& model, const data::RowPass& pass, const RowNumbers& rows = {},
                     const Dropout& dropout = {}) {
  const auto attention = MakePassAttention(pass, model.Config().Attention(), model.DType(), model.Device());
  return model.Hidden(model.Embed(Longs(pass.token)), Longs(pass.position), *attention, rows, dropout);
}

struct Gradients {
  at::Tensor hidden;
  std::vector<at::Tensor> of;
};

// d sum(hidden * direction) / d parameters.
Gradients Differentiate(const Decoder& model, const at::Tensor& hidden) {
  std::vector<at::Tensor> parameters;
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    if (!name.starts_with("lm_head")) parameters.push_back(tensor);
  }
  const at::Tensor loss = (hidden * RandomTensor(hidden.sizes().vec(), 77)).sum();
  return {hidden, torch::autograd::grad({loss}, parameters)};
}

void ExpectEqualToNaive(const Decoder& model, const data::RowPass& pass) {
  const Gradients found = Differentiate(model, RunHidden(model, pass));
  const Gradients wanted = Differentiate(model, NaiveHidden(model, pass));
  EXPECT_LT(RelativeError(found.hidden, wanted.hidden), kRounding);
  ASSERT_EQ(found.of.size(), wanted.of.size());
  for (std::size_t i = 0; i < found.of.size(); ++i) {
    EXPECT_LT(RelativeError(found.of[i], wanted.of[i]), kRounding) << model.TrainableParameters()[i].name;
  }
}

TEST(Decoder, FullWeightGradientsEqualNaiveOnes) {
  for (const bool tied : {false, true}) {
    Decoder model(SmallConfig(tied), at::kDouble, at::kCPU);
    model.InitializeRandom(1);
    model.TrainBase();
    ExpectEqualToNaive(model, RandomTreePass(40, 3));
    ExpectEqualToNaive(model, PlainPass(3, 11, 4));
  }
}

TEST(Decoder, AdapterGradientsEqualNaiveOnes) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  model.AddAdapter(EveryLinear(), 2);
  FillAdapter(model, 5);
  ExpectEqualToNaive(model, RandomTreePass(40, 3));

  Decoder partly(SmallConfig(), at::kDouble, at::kCPU);
  partly.InitializeRandom(1);
  partly.AddAdapter({.rank = 2, .alpha = 4.0, .dropout = 0.0, .targets = {"k_proj", "down_proj"}}, 2);
  FillAdapter(partly, 5);
  ExpectEqualToNaive(partly, RandomTreePass(40, 6));
}

TEST(Decoder, WhatFamiliesAddEqualsNaiveOnes) {
  for (const bool fused : {false, true}) {
    Decoder model(RichConfig(fused), at::kDouble, at::kCPU);
    model.InitializeRandom(1);
    RandomiseVectors(model);
    model.TrainBase();
    ExpectEqualToNaive(model, RandomTreePass(40, 3));
    ExpectEqualToNaive(model, RandomTreePass(200, 3, 29, 12));
    ExpectEqualToNaive(model, PlainPass(3, 11, 4));
    EXPECT_LE(model.Logits(RunHidden(model, PlainPass(3, 11, 4))).abs().max().item<double>(), 3.0);

    Decoder adapted(RichConfig(fused), at::kDouble, at::kCPU);
    adapted.InitializeRandom(1);
    RandomiseVectors(adapted);
    AdapterSettings settings = EveryLinear();
    if (fused) settings.targets = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"};
    adapted.AddAdapter(settings, 2);
    FillAdapter(adapted, 5);
    ExpectEqualToNaive(adapted, RandomTreePass(40, 3));
  }
}

// As on a GPU: q, k, v and gate, up are one product each, of frozen weights whose names and values stay.
TEST(Decoder, JoinedProductsAreThoseOfEachLayer) {
  for (const bool rich : {false, true}) {
    for (const double p : {0.0, 0.3}) {
      const auto make = [&](Decoder::Joins joins) {
        Decoder model(rich ? RichConfig(false) : SmallConfig(), at::kDouble, at::kCPU, {},
                      Decoder::Linears::kNow, joins);
        model.InitializeRandom(1);
        if (rich) RandomiseVectors(model);
        AdapterSettings settings = EveryLinear();
        settings.dropout = p;
        model.AddAdapter(settings, 2);
        FillAdapter(model, 5);
        return model;
      };
      const Decoder model = make(Decoder::Joins::kAlways), apart = make(Decoder::Joins::kOffTheCpu);
      const Tensors tensors = NamedTensors(model), wanted_tensors = NamedTensors(apart);
      for (const auto& [name, tensor] : tensors) {
        EXPECT_TRUE(at::equal(tensor, wanted_tensors.at(name))) << name;
        EXPECT_TRUE(tensor.is_contiguous()) << name;
      }
      const auto end = [&](const char* name) {
        const at::Tensor& tensor = tensors.at(name);
        return tensor.const_data_ptr<double>() + tensor.numel();
      };
      const std::string q = "model.layers.0.self_attn.q_proj.weight",
                        k = "model.layers.0.self_attn.k_proj.weight";
      EXPECT_EQ(end(q.c_str()), tensors.at(k).const_data_ptr<double>());

      const data::RowPass pass = RandomTreePass(40, 3);
      const Dropout rows = p > 0 ? Dropout{at::arange(5, 45, at::kLong)} : Dropout{};
      const Gradients found = Differentiate(model, RunHidden(model, pass, {}, rows));
      const Gradients wanted = Differentiate(apart, RunHidden(apart, pass, {}, rows));
      EXPECT_LT(RelativeError(found.hidden, wanted.hidden), kRounding);
      for (std::size_t i = 0; i < found.of.size(); ++i) {
        EXPECT_LT(RelativeError(found.of[i], wanted.of[i]), kRounding) << model.TrainableParameters()[i].name;
      }
      const c10::AutoGradMode no_grad(false);
      EXPECT_LT(RelativeError(RunHidden(model, pass), RunHidden(apart, pass)), kRounding);
    }
  }
}

// Trained weights are products of their own, as views of the flat buffer, and NF4 ones from their own
// storage.
TEST(Decoder, TrainedAndQuantisedWeightsAreNotJoined) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU, {}, Decoder::Linears::kNow, Decoder::Joins::kAlways);
  model.InitializeRandom(1);
  model.TrainBase();
  const dist::FlatParameters parameters(model.TrainableParameters());
  parameters.CheckAliasing();
  parameters.Values().mul_(1.5);  // as an update does
  ExpectEqualToNaive(model, RandomTreePass(40, 3));

  Decoder frozen(SmallConfig(), at::kDouble, at::kCPU, {}, Decoder::Linears::kNow, Decoder::Joins::kAlways);
  frozen.InitializeRandom(1);
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  const Nf4Weight packed = QuantizeToNf4(NamedTensors(frozen).at(name));
  Decoder rounded(SmallConfig(), at::kDouble, at::kCPU);
  rounded.InitializeRandom(1);
  NamedTensors(rounded).at(name).copy_(packed.Dequantized(at::kDouble));
  frozen.SetNf4(name, packed);
  const c10::AutoGradMode no_grad(false);
  EXPECT_LT(
      RelativeError(RunHidden(frozen, RandomTreePass(40, 3)), RunHidden(rounded, RandomTreePass(40, 3))),
      kRounding);
}

TEST(Decoder, NewNormsMultiplyByOneAndBiasesAreZero) {
  Decoder model(RichConfig(false), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  const Tensors tensors = NamedTensors(model);
  for (const char* name : {"model.norm.weight", "model.layers.0.self_attn.q_norm.weight",
                           "model.layers.2.post_feedforward_layernorm.weight",
                           "model.layers.1.self_attn.k_proj.bias", "model.layers.1.mlp.down_proj.bias"}) {
    EXPECT_EQ(tensors.at(name).abs().max().item<double>(), 0.0) << name;
  }
  std::int64_t count = 0;
  for (const auto& [name, tensor] : model.BaseParameters()) count += tensor.numel();
  EXPECT_EQ(count, model.Config().ParameterCount());
}

TEST(Decoder, SlidingWindowCountsPathPositions) {
  ModelConfig config = SmallConfig();
  config.sliding_window = 4;
  Decoder model(config, at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  model.TrainBase();
  ExpectEqualToNaive(model, RandomTreePass(40, 3));
  ExpectEqualToNaive(model, PlainPass(3, 11, 4));
}

TEST(Decoder, ChosenRowsHaveTheValuesAndGradientsOfAll) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  model.AddAdapter(EveryLinear(), 2);
  FillAdapter(model, 5);
  const data::RowPass pass = RandomTreePass(40, 3);
  const RowNumbers rows({2, 3, 17, 39}, at::kCPU);
  const Gradients found = Differentiate(model, RunHidden(model, pass, rows));
  const Gradients wanted = Differentiate(model, RunHidden(model, pass).index_select(0, rows.on_device));
  EXPECT_LT(RelativeError(found.hidden, wanted.hidden), kRounding);
  for (std::size_t i = 0; i < found.of.size(); ++i) {
    EXPECT_LT(RelativeError(found.of[i], wanted.of[i]), kRounding) << model.TrainableParameters()[i].name;
  }
}

TEST(Decoder, RandomWeightsDependOnSeedAndNameOnly) {
  ModelConfig deep = SmallConfig();
  ModelConfig shallow = SmallConfig();
  shallow.num_hidden_layers = 1;
  Decoder a(deep, at::kDouble, at::kCPU), b(shallow, at::kFloat, at::kCPU), c(deep, at::kDouble, at::kCPU);
  a.InitializeRandom(1);
  b.InitializeRandom(1);
  c.InitializeRandom(2);
  const Tensors in_a = NamedTensors(a), in_b = NamedTensors(b), in_c = NamedTensors(c);
  for (const auto& [name, tensor] : in_b)
    EXPECT_TRUE(at::equal(in_a.at(name).to(at::kFloat), tensor)) << name;
  const std::string name = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_FALSE(at::equal(in_a.at(name), in_c.at(name)));
  EXPECT_FALSE(at::equal(in_a.at(name), in_a.at("model.layers.2.self_attn.q_proj.weight")));
  EXPECT_TRUE(at::equal(in_a.at("model.norm.weight"), at::ones({20}, at::kDouble)));
  // 580 draws: the mean's deviation is 0.3 / sqrt(580) = 0.0125, the standard deviation's 0.3 / sqrt(1160) =
  // 0.0088. Five of each.
  EXPECT_NEAR(in_a.at("lm_head.weight").mean().item<double>(), 0.0, 0.0625);
  EXPECT_NEAR(in_a.at("lm_head.weight").std().item<double>(), 0.3, 0.044);
}

TEST(Decoder, NewAdapterChangesNothingAndFreezesTheBase) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  model.TrainBase();
  const data::RowPass pass = RandomTreePass(20, 3);
  const at::Tensor before = RunHidden(model, pass).detach();
  model.AddAdapter(EveryLinear(), 2);
  EXPECT_TRUE(at::equal(RunHidden(model, pass).detach(), before));
  for (const auto& [name, tensor] : model.BaseParameters()) EXPECT_FALSE(tensor.requires_grad()) << name;
  const auto trained = model.TrainableParameters();
  ASSERT_EQ(trained.size(), 2U * (3 * 7 + 1));
  EXPECT_EQ(trained[0].name, "model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(trained[1].name, "model.layers.0.self_attn.q_proj.lora_B.weight");
  EXPECT_EQ(trained.back().name, "lm_head.lora_B.weight");
  for (const auto& [name, tensor] : trained) {
    EXPECT_TRUE(tensor.requires_grad()) << name;
    if (name.ends_with("lora_A.weight")) {
      // Uniform within 1 / sqrt(in features).
      const double bound = 1.0 / std::sqrt(static_cast<double>(tensor.size(1)));
      EXPECT_LE(tensor.abs().max().item<double>(), bound) << name;
      EXPECT_GT(tensor.abs().max().item<double>(), 0.8 * bound) << name;
    }
  }
}

TEST(Decoder, EmbeddingsBelowAFrozenBaseMakeNoGradientWork) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  model.AddAdapter({.rank = 2, .alpha = 4.0, .dropout = 0.0, .targets = {"lm_head"}}, 2);
  EXPECT_FALSE(RunHidden(model, RandomTreePass(10, 3)).requires_grad());
}

TEST(Decoder, DropoutIsAFunctionOfItsKeys) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  model.InitializeRandom(1);
  AdapterSettings settings = EveryLinear();
  settings.dropout = 0.5;
  model.AddAdapter(settings, 2);
  FillAdapter(model, 5);
  const data::RowPass pass = RandomTreePass(20, 3);
  const Dropout nine{at::arange(9, 9 + pass.length, at::kLong)},
      ten{at::arange(10, 10 + pass.length, at::kLong)};
  EXPECT_TRUE(at::equal(RunHidden(model, pass, {}, nine), RunHidden(model, pass, {}, nine)));
  EXPECT_FALSE(at::equal(RunHidden(model, pass, {}, nine), RunHidden(model, pass, {}, ten)));
  EXPECT_FALSE(at::equal(RunHidden(model, pass, {}, nine), RunHidden(model, pass)));
}

TEST(RmsNorm, OverflowIsNotAQuietZero) {
  const at::Tensor weight = at::ones({8});
  const at::Tensor huge = at::full({1, 8}, 1e30F);  // its square overflows fp32, 1 / sqrt(inf) is 0
  EXPECT_TRUE(RmsNorm(huge, weight, {}).isnan().all().item<bool>());
  EXPECT_TRUE(
      RmsNorm(huge.to(at::kDouble), weight.to(at::kDouble), {}).allclose(at::ones({1, 8}, at::kDouble)));
}

TEST(Decoder, RefusesAdaptersItCannotMake) {
  Decoder model(SmallConfig(), at::kDouble, at::kCPU);
  for (const AdapterSettings& settings :
       {AdapterSettings{.targets = {"qkv_proj"}}, AdapterSettings{.targets = {}},
        AdapterSettings{.rank = 0, .targets = {"q_proj"}}}) {
    try {
      model.AddAdapter(settings, 1);
      ADD_FAILURE() << "accepted";
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadRecipe);
      EXPECT_TRUE(std::string(error.what()).starts_with("adapter.")) << error.what();
    }
  }
}

}  // namespace
}  // namespace plural::trainer
