#include "trainer/state/checkpoint_tensors.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include "trainer/base/error.h"

namespace plural::trainer {

void RequireTensors(const SafetensorsReader& reader, std::size_t count) {
  if (reader.Entries().size() == count) return;
  throw ExitError(ExitCode::kBadData, reader.Path().string() + ": " +
                                          std::to_string(reader.Entries().size()) +
                                          " tensors; this recipe trains " + std::to_string(count));
}

at::Tensor ReadTensor(const SafetensorsReader& reader, const std::string& name, at::IntArrayRef shape,
                      at::ScalarType dtype) {
  const auto entry = reader.Entries().find(name);
  if (entry == reader.Entries().end()) {
    throw ExitError(ExitCode::kBadData, reader.Path().string() + ": tensor '" + name + "' is missing");
  }
  if (at::IntArrayRef(entry->second.shape) != shape || entry->second.dtype != dtype) {
    throw ExitError(ExitCode::kBadData, reader.Path().string() + ": tensor '" + name +
                                            "' has another shape or dtype than this recipe's");
  }
  return reader.Read(name);
}

void FillTensors(const SafetensorsReader& reader, const std::vector<dist::NamedTensor>& tensors) {
  const c10::NoGradGuard no_gradient;
  RequireTensors(reader, tensors.size());
  for (const auto& [name, tensor] : tensors) {
    at::Tensor target = tensor;  // shares its memory with the flat buffer
    target.copy_(ReadTensor(reader, name, tensor.sizes(), tensor.scalar_type()));
  }
}

}  // namespace plural::trainer
