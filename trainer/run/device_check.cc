#include "trainer/run/device_check.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "data/rows.h"
#include "trainer/base/error.h"
#include "trainer/ops/attention.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kTrunk = 70, kBranch = 25, kBranches = 4;  // more rows than a kernel's tile, and odd
constexpr std::int64_t kPaddedRows = 3, kPaddedLength = 45;
constexpr std::int64_t kWindow = 33;

// A prompt and responses behind it.
data::RowPass Tree() {
  data::RowPass pass;
  pass.length = kTrunk + kBranches * kBranch;
  for (std::int64_t row = 0; row < pass.length; ++row) {
    const std::int64_t branch = row < kTrunk ? -1 : (row - kTrunk) / kBranch;
    pass.position.push_back(static_cast<std::int32_t>(branch < 0 ? row : row - branch * kBranch));
    pass.end.push_back(static_cast<std::int32_t>(branch < 0 ? pass.length : kTrunk + (branch + 1) * kBranch));
  }
  return pass;
}

data::RowPass PaddedRows() {
  data::RowPass pass;
  pass.batch = kPaddedRows;
  pass.length = kPaddedLength;
  for (std::int64_t row = 0; row < pass.batch * pass.length; ++row) {
    pass.position.push_back(static_cast<std::int32_t>(row % pass.length));
  }
  return pass;
}

// [T, T], the same for all rows of a batch.
at::Tensor Hidden(const data::RowPass& pass, std::int64_t window) {
  const at::Tensor hidden = at::empty({pass.length, pass.length}, at::kBool);
  bool* next = hidden.mutable_data_ptr<bool>();
  for (std::int64_t q = 0; q < pass.length; ++q) {
    for (std::int64_t k = 0; k < pass.length; ++k) {
      const auto at = [](std::int64_t row) { return static_cast<std::size_t>(row); };
      const bool below = pass.end.empty() || q < pass.end[at(k)];
      const bool near = window == 0 || pass.position[at(q)] - pass.position[at(k)] < window;
      *next++ = k > q || !below || !near;
    }
  }
  return hidden;
}

at::Tensor MaskedSoftmax(const data::RowPass& pass, const ModelConfig& config, const at::Tensor& q_NHD,
                         const at::Tensor& k_NGD, const at::Tensor& v_NGD) {
  const auto heads = [&](const at::Tensor& x) {  // [B, H, T, D]
    return x.view({pass.batch, pass.length, x.size(1), x.size(2)})
        .transpose(1, 2)
        .repeat_interleave(q_NHD.size(1) / x.size(1), 1);
  };
  at::Tensor scores = at::matmul(heads(q_NHD), heads(k_NGD).transpose(2, 3)) * config.AttentionScale();
  const double softcap = config.attn_logit_softcapping;
  if (softcap > 0.0) scores = (scores / softcap).tanh() * softcap;
  scores = scores.masked_fill(Hidden(pass, config.sliding_window), -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, 3), heads(v_NGD)).transpose(1, 2).reshape({q_NHD.size(0), -1});
}

// Output, and gradients of the inputs towards `direction`, in fp64 on the CPU.
template <class Function>
std::vector<at::Tensor> WithGradients(const std::vector<at::Tensor>& inputs, const at::Tensor& direction,
                                      const Function& attention) {
  const c10::AutoGradMode grad(true);
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().set_requires_grad(true));
  const at::Tensor out = attention(leaves);
  std::vector<at::Tensor> found = {out.detach()};
  const at::Tensor along = direction.to(out.device(), out.scalar_type());
  for (const at::Tensor& d : torch::autograd::grad({(out * along).sum()}, leaves)) found.push_back(d);
  for (at::Tensor& x : found) x = x.to(at::kCPU, at::kDouble);
  return found;
}

double ErrorOf(const data::RowPass& pass, const ModelConfig& config, at::ScalarType dtype,
               at::Device device) {
  const auto generator = at::detail::createCPUGenerator(1);
  const auto draw = [&](std::vector<std::int64_t> shape) {
    return at::randn(shape, generator, at::kFloat).to(dtype);  // as a kernel gets them: rounded already
  };
  const std::int64_t rows = pass.batch * pass.length, dim = config.head_dim;
  const std::vector<at::Tensor> inputs = {draw({rows, config.num_attention_heads, dim}),
                                          draw({rows, config.num_key_value_heads, dim}),
                                          draw({rows, config.num_key_value_heads, dim})};
  const at::Tensor direction = draw({rows, config.num_attention_heads * dim});

  std::vector<at::Tensor> on_device, wide;
  for (const at::Tensor& input : inputs) {
    on_device.push_back(input.to(device));
    wide.push_back(input.to(at::kDouble));
  }
  const auto kernel = MakePassAttention(pass, config.Attention(), dtype, device);
  const auto found =
      WithGradients(on_device, direction, [&](const auto& in) { return (*kernel)(0, in[0], in[1], in[2]); });
  const auto wanted = WithGradients(
      wide, direction, [&](const auto& in) { return MaskedSoftmax(pass, config, in[0], in[1], in[2]); });
  double error = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double apart = (found[i] - wanted[i]).abs().max().item<double>();
    if (!std::isfinite(apart)) return apart;
    error = std::max(error, apart / wanted[i].abs().max().item<double>());
  }
  return error;
}

// Sums of some hundred products with 24 bits, of exponents below ten; with 8 bits, probabilities and their
// gradients rounded between the multiplies, too.
double AllowedError(at::ScalarType dtype) {
  if (dtype == at::kDouble) return 1e-12;
  return dtype == at::kFloat ? 1e-4 : 3e-2;
}

}  // namespace

double AttentionError(const ModelConfig& config, at::ScalarType dtype, at::Device device) {
  ModelConfig one_layer = config;
  one_layer.num_hidden_layers = 1;
  one_layer.sliding_layers.clear();
  double error = 0.0;
  for (const data::RowPass& pass : {Tree(), PaddedRows()}) {
    for (const std::int64_t window : {std::int64_t{0}, kWindow}) {
      one_layer.sliding_window = window;
      const double found = ErrorOf(pass, one_layer, dtype, device);
      if (!std::isfinite(found)) return found;
      error = std::max(error, found);
    }
  }
  return error;
}

void CheckAttention(const ModelConfig& config, at::ScalarType dtype, at::Device device) {
  const double error = AttentionError(config, dtype, device);
  if (error <= AllowedError(dtype)) return;
  char text[300];
  std::snprintf(
      text, sizeof text,
      "attention on %s differs from the plain formula by %.2g of the largest value, at most %.2g is "
      "rounding; %s",
      device.str().c_str(), error, AllowedError(dtype),
      device.is_cuda() ? "set PLURAL_WITHOUT_KERNELS=attention, update the driver, or compute on the CPU "
                         "(model.device=cpu, or --device cpu)"
                       : "set ONEDNN_MAX_CPU_ISA to AVX512_CORE, and report the processor");
  throw ExitError(ExitCode::kWrongResources, text);
}

void RequireHeadDimension(const ModelConfig& config, at::ScalarType dtype, at::Device device) {
  const std::int64_t multiple = dtype == at::kBFloat16 ? 8 : 4;  // 16 bytes, the kernel's loads
  if (!device.is_cuda() || config.attn_logit_softcapping > 0.0 || config.head_dim % multiple == 0) return;
  throw ExitError(ExitCode::kBadRecipe,
                  "the model's head_dim is " + std::to_string(config.head_dim) + "; on a GPU in " +
                      (dtype == at::kBFloat16 ? "bf16" : "fp32") + " it must be a multiple of " +
                      std::to_string(multiple) + ": compute on the CPU (model.device=cpu, or --device cpu)" +
                      (dtype == at::kBFloat16 && config.head_dim % 4 == 0 ? ", or in fp32" : ""));
}

std::string KernelWarning(const std::vector<std::string>& problem_of_rank) {
  const auto first =
      std::ranges::find_if(problem_of_rank, [](const std::string& problem) { return !problem.empty(); });
  if (first == problem_of_rank.end()) return "";
  return "rank " + std::to_string(first - problem_of_rank.begin()) +
         " lacks the kernels for GPUs: " + *first +
         ". Without them a GPU works, slowly: attention takes a mask of all rows of a pass by all of them, "
         "so that time and memory grow with the square of rows (train.row_budget=1024 keeps passes small), "
         "and "
         "the host draws dropout and tokens";
}

}  // namespace plural::trainer
