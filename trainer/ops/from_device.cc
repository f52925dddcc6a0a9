#include "trainer/ops/from_device.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>

#include <cstdint>

namespace plural::trainer {

std::vector<std::vector<double>> ReadTogether(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined()) flat.push_back(tensor.detach().reshape(-1).to(at::kDouble));
  }
  std::vector<std::vector<double>> values(tensors.size());
  if (flat.empty()) return values;
  const at::Tensor host = at::cat(flat).to(at::kCPU);
  const double* next = host.const_data_ptr<double>();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t count = tensors[i].defined() ? tensors[i].numel() : 0;
    values[i].assign(next, next + count);
    next += count;
  }
  return values;
}

}  // namespace plural::trainer
