#include "trainer/ops/dropout_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "trainer/kernels/dropout_draws.h"
#include "trainer/ops/kernel_operands.h"

namespace plural::trainer {
namespace {

// What both directions tell the kernel.
DropSitesArguments SitesOf(const std::vector<Dropout>& places, double p, const at::Tensor& key_R,
                           const at::Tensor& like_RI) {
  DropSitesArguments arguments{.x = nullptr,
                               .dropped = nullptr,
                               .dx = nullptr,
                               .sum = nullptr,
                               .rows = like_RI.size(0),
                               .features = like_RI.size(1),
                               .row_key = key_R.const_data_ptr<std::int64_t>(),
                               .site = {},
                               .sites = static_cast<int>(places.size()),
                               .threshold = host::DropoutThreshold(p),
                               .kept = static_cast<float>(1.0 / (1.0 - p)),
                               .type = KernelTypeOf(like_RI.scalar_type())};
  for (std::size_t s = 0; s < places.size(); ++s) arguments.site[s] = places[s].site;
  return arguments;
}

// Emulated kernels read the host's.
at::Tensor KeysFor(const Dropout& place, const CudaKernels* given) {
  const at::Tensor& key_R = given != nullptr ? place.row_key_R : place.row_key_on_gpu_R;
  return key_R.defined() ? key_R.contiguous() : key_R;
}

}  // namespace

bool DropsTogether(const std::vector<Dropout>& places, const at::Tensor& x_RI, const CudaKernels* given) {
  return KernelsFor(x_RI, given).drop_sites != nullptr && !places.empty() &&
         places.size() <= static_cast<std::size_t>(kMostDropSites) && KeysFor(places[0], given).defined() &&
         IsFp32OrBf16(x_RI.scalar_type()) && x_RI.size(1) % kValuesAtOnce == 0;
}

at::Tensor DroppedTogether(const std::vector<Dropout>& places, double p, const at::Tensor& x_RI,
                           const CudaKernels* given) {
  const at::Tensor x = ForKernel(x_RI);
  const at::Tensor key_R = KeysFor(places[0], given);
  at::Tensor dropped_SRI =
      at::empty({static_cast<std::int64_t>(places.size()), x.size(0), x.size(1)}, x.options());
  DropSitesArguments arguments = SitesOf(places, p, key_R, x);
  arguments.x = x.const_data_ptr();
  arguments.dropped = dropped_SRI.mutable_data_ptr();
  StartKernel(KernelsFor(x, given).drop_sites, "plural::drop_sites", arguments, x.device());
  return dropped_SRI;
}

void AddDropped(const at::Tensor& sum_RI, const std::vector<Dropout>& places, double p,
                const at::Tensor& dx_SRI, const CudaKernels* given) {
  const at::Tensor sum = ForKernel(sum_RI);
  const at::Tensor dx = ForKernel(dx_SRI);
  const at::Tensor key_R = KeysFor(places[0], given);
  DropSitesArguments arguments = SitesOf(places, p, key_R, sum);
  arguments.dx = dx.const_data_ptr();
  arguments.sum = sum.mutable_data_ptr();
  StartKernel(KernelsFor(sum, given).drop_sites, "plural::drop_sites_backward", arguments, sum.device());
  if (!sum.is_same(sum_RI)) sum_RI.copy_(sum);
}

}  // namespace plural::trainer
