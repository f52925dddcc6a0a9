#include "trainer/files/load_model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <array>
#include <optional>

#include "dist/agreement.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/peft_config.h"
#include "trainer/kernels/nf4_loops.h"

namespace plural::trainer {
namespace {

// A model without its weights, and what goes on top of them.
struct Begun {
  Decoder model;
  AdapterPlan plan;
  std::string adapter_dir;
  std::string latents_dir;
  std::int64_t latents = 0;
};

Begun Begin(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
            at::Device device) {
  // Both configs first: a wrong one should not cost the time of loading gigabytes.
  ModelConfig config = ModelConfig::FromFolder(model_dir);
  if (!adapter_dir.empty()) config.AddEndTokens(GenerationEndTokens(adapter_dir));
  std::optional<PeftConfig> adapter;
  if (!adapter_dir.empty()) adapter.emplace(adapter_dir);
  const std::string latents_dir = adapter ? adapter_dir : model_dir;
  const std::int64_t latents = LatentsIn(latents_dir);

  Begun begun{
      Decoder(config, dtype, device, {}, Decoder::Linears::kLater), {}, adapter_dir, latents_dir, latents};
  if (adapter) begun.plan = adapter->PlanFor(begun.model);
  return begun;
}

Decoder Finish(Begun begun) {
  Decoder& model = begun.model;
  if (!begun.adapter_dir.empty()) AttachAdapter(model, begun.adapter_dir, begun.plan);
  if (begun.latents > 0) {
    model.AddLatents(begun.latents, /*seed=*/0);  // every value is overwritten
    LoadLatents(model, begun.latents_dir);
  }
  for (const dist::NamedTensor& parameter : model.TrainableParameters()) {
    parameter.tensor.set_requires_grad(false);
  }
  // Nothing is trained: factors in the dtype of the products need no conversion at each.
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    factor.tensor.set_data(factor.tensor.to(model.DType()));
  }
  return std::move(model);
}

// COLLECTIVE.
void HandToNeighbours(const at::Tensor& tensor, const dist::World& world, dist::Collectives& collectives) {
  if (tensor.is_cpu()) return collectives.BroadcastOnMachine(tensor);
  const c10::AutoGradMode no_grad(false);
  const bool reads = world.LocalRank() == 0;
  const at::Tensor host = reads ? tensor.cpu() : at::empty(tensor.sizes(), tensor.scalar_type());
  collectives.BroadcastOnMachine(host);
  if (!reads) tensor.copy_(host);
}

// What tells ranks that do not read how a weight is stored, before its bytes come.
struct Announced {
  std::int64_t nf4 = 0;     // 0: in full
  std::int64_t packed = 0;  // elements
  std::int64_t absmax = 0;
  std::int64_t nested = 0;  // 0: no double quantisation
  double offset = 0.0;
};

// COLLECTIVE.
Nf4Weight HandNf4ToNeighbours(const Nf4Weight& read, const Announced& announced, const dist::World& world,
                              dist::Collectives& collectives) {
  const bool reads = world.LocalRank() == 0;
  const bool twice = announced.nested > 0;
  Nf4Weight weight = read;
  weight.offset = static_cast<float>(announced.offset);
  const auto hand = [&](at::Tensor& tensor, std::int64_t count, at::ScalarType dtype) {
    tensor = reads ? tensor.cpu() : at::empty({count}, dtype);
    collectives.BroadcastOnMachine(tensor);
  };
  hand(weight.packed_P, announced.packed, at::kByte);
  hand(weight.absmax_B, announced.absmax, twice ? at::kByte : at::kFloat);
  if (!twice) return weight;
  hand(weight.map, host::kAbsmaxLevels, at::kFloat);
  hand(weight.nested_absmax_N, announced.nested, at::kFloat);
  return weight;
}

// COLLECTIVE.
void HandParameter(Decoder& model, const dist::NamedTensor& parameter, const dist::World& world,
                   dist::Collectives& collectives) {
  const bool reads = world.LocalRank() == 0;
  Nf4Weight read;
  Announced announced;
  if (const Nf4Weight* nf4 = model.Nf4(parameter.name); reads && nf4 != nullptr) {
    read = *nf4;
    announced = {1, read.packed_P.numel(), read.absmax_B.numel(),
                 read.DoublyQuantized() ? read.nested_absmax_N.numel() : 0, read.offset};
  }
  const at::Tensor bytes =
      at::from_blob(&announced, {static_cast<std::int64_t>(sizeof announced)}, at::kByte);
  collectives.BroadcastOnMachine(bytes);
  if (announced.nf4 == 0) {
    const bool later = parameter.tensor.is_meta();
    return HandToNeighbours(later ? model.SetFull(parameter.name) : parameter.tensor, world, collectives);
  }
  read.outputs = parameter.tensor.size(0);
  read.inputs = parameter.tensor.size(1);
  const Nf4Weight weight = HandNf4ToNeighbours(read, announced, world, collectives);
  if (!reads) model.SetNf4(parameter.name, weight);
}

}  // namespace

void LoadBaseWeights(Decoder& model, const std::string& folder, const dist::World& world,
                     dist::Collectives& collectives, FullLinears full_linears) {
  OnEveryRank(world, collectives, [&] {
    if (world.LocalRank() == 0) LoadBaseWeights(model, folder, full_linears);
  });
  // Alone on every machine, nobody waits for weights, which would go from a GPU to the host for nothing.
  std::array<double, 1> most = {static_cast<double>(world.LocalSize())};
  collectives.AllReduceMax(most);
  if (most[0] == 1.0) return;
  for (const dist::NamedTensor& parameter : model.BaseParameters()) {
    HandParameter(model, parameter, world, collectives);
  }
}

Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device, FullLinears full_linears) {
  Begun begun = Begin(model_dir, adapter_dir, dtype, device);
  LoadBaseWeights(begun.model, model_dir, full_linears);
  return Finish(std::move(begun));
}

Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device, const dist::World& world, dist::Collectives& collectives,
                  FullLinears full_linears) {
  Begun begun =
      MakeOnEveryRank(world, collectives, [&] { return Begin(model_dir, adapter_dir, dtype, device); });
  LoadBaseWeights(begun.model, model_dir, world, collectives, full_linears);
  return MakeOnEveryRank(world, collectives, [&] { return Finish(std::move(begun)); });
}

}  // namespace plural::trainer
