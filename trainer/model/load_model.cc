#include "trainer/model/load_model.h"

#include <ATen/core/Tensor.h>

#include <optional>

#include "trainer/model/hf_folder.h"
#include "trainer/model/peft_config.h"

namespace plural::trainer {

Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device) {
  // Both configs first: a wrong one should not cost the time of loading gigabytes.
  const ModelConfig config = ModelConfig::FromFolder(model_dir);
  std::optional<PeftConfig> adapter;
  if (!adapter_dir.empty()) adapter.emplace(adapter_dir);

  const std::string latents_dir = adapter ? adapter_dir : model_dir;
  const std::int64_t latents = LatentsIn(latents_dir);

  Decoder model(config, dtype, device);
  AdapterPlan plan;
  if (adapter) plan = adapter->PlanFor(model);
  LoadBaseWeights(model, model_dir);
  if (adapter) AttachAdapter(model, adapter_dir, plan);
  if (latents > 0) {
    model.AddLatents(latents, /*seed=*/0);  // every value is overwritten
    LoadLatents(model, latents_dir);
  }
  for (const dist::NamedTensor& parameter : model.TrainableParameters()) {
    parameter.tensor.set_requires_grad(false);
  }
  return model;
}

}  // namespace plural::trainer
