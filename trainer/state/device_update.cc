#include "trainer/state/device_update.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

namespace plural::trainer {

void UpdateByOperators(const AdamWBuffers& buffers, std::int64_t offset, std::int64_t size,
                       const AdamWScalars<double>& u, std::int64_t piece) {
  const c10::NoGradGuard no_gradient;
  for (std::int64_t done = 0; done < size; done += piece) {
    const auto part = [&](const at::Tensor& whole) {
      return whole.narrow(0, offset + done, std::min(piece, size - done));
    };
    at::Tensor p = part(buffers.values), g = part(buffers.gradients);
    at::Tensor m = part(buffers.first_moment), v = part(buffers.second_moment);
    if (u.gradient_scale != 1.0) g = g * u.gradient_scale;
    p.mul_(u.decay);
    m.lerp_(g, u.one_minus_beta1);
    v.mul_(u.beta2).addcmul_(g, g, u.one_minus_beta2);
    p.addcdiv_(m, v.sqrt().div_(u.correction2_sqrt).add_(u.eps), -u.step_size);
  }
}

}  // namespace plural::trainer
