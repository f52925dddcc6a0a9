// The tensors in an adapter's folder, by PEFT's names.
//
// Owns: how PEFT names factors, copied layers and the base weights that it stores though it does not change
// them. Does not own: the config (peft_config.h), the model. Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "trainer/files/weight_files.h"

namespace plural::trainer {

inline constexpr const char* kAdapterPrefix = "base_model.model.";  // PEFT's wrapper, the model inside it
inline constexpr const char* kAdapterStem = "adapter_model";        // of the weight files

class AdapterFiles {
 public:
  // `parameters`: the model's base parameters, lm_head.weight included where it is tied; `replaced`: those
  // of which the adapter holds a copy of its own. Errors: those of WeightFiles.
  AdapterFiles(const std::filesystem::path& folder, const std::set<std::string>& parameters,
               const std::set<std::string>& replaced);

  // `name` is the model's: "model.layers.0.self_attn.q_proj.lora_A.weight", "lm_head.weight".
  at::Tensor Read(const std::string& name) const { return files_.ReadFinite(kAdapterPrefix + name); }
  // Errors: those of WeightFiles::Check and Fill; names of `wanted` are the model's.
  void Check(std::vector<WeightFiles::Wanted> wanted) const;
  void Fill(std::vector<WeightFiles::Wanted> wanted) const;

  // PEFT stores the base weight of an adapted head beside its factors: the parameters of which it did so.
  std::vector<std::string> StoredBase() const;
  // Errors: ExitError(kBadData) when the
  // one stored for `parameter` is not `base`: the adapter was made for another model.
  void RequireSameBase(const std::string& parameter, const at::Tensor& base) const;

 private:
  WeightFiles files_;
  std::map<std::string, std::string> stored_;  // parameter -> name in the files
  std::vector<std::string> others_;            // those names
};

}  // namespace plural::trainer
