#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "tests/gpu/kernel_checks.h"
#include "tests/gpu/random_operand.h"
#include "trainer/base/error.h"
#include "trainer/ops/tree_attention.h"
#include "trainer/ops/tree_attention_cuda.h"

namespace plural::trainer {
namespace {

using Tensors = std::vector<at::Tensor>;

// Groups of one prompt and its responses, as many as fill `rows`.
data::RowPass Groups(std::int64_t rows, std::int64_t prompt, std::int64_t responses, std::int64_t length) {
  data::RowPass pass;
  pass.length = pass.rows = rows;
  const std::int64_t group = prompt + responses * length;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t in_group = row % group, begin = row - in_group;
    const std::int64_t response = in_group < prompt ? -1 : (in_group - prompt) / length;
    const std::int64_t end = response < 0 ? begin + group : begin + prompt + (response + 1) * length;
    pass.position.push_back(
        static_cast<std::int32_t>(response < 0 ? in_group : prompt + (in_group - prompt) % length));
    pass.end.push_back(static_cast<std::int32_t>(std::min(end, rows)));
  }
  return pass;
}

std::int64_t VisiblePairs(const data::RowPass& pass) {
  std::int64_t pairs = 0;
  for (std::size_t key = 0; key < pass.end.size(); ++key)
    pairs += pass.end[key] - static_cast<std::int64_t>(key);
  return pairs;
}

struct Inputs {
  at::Tensor q, k, v, direction;

  template <class Function>
  Inputs Each(const Function& change) const {
    return {change(q), change(k), change(v), change(direction)};
  }
};

Inputs InputsOf(const data::RowPass& pass, const AttentionTerms& terms, at::ScalarType dtype) {
  return {RandomOperand({pass.length, terms.heads, terms.head_dim}, 1, dtype).mul_(3.0),
          RandomOperand({pass.length, terms.shared_heads, terms.head_dim}, 2, dtype).mul_(3.0),
          RandomOperand({pass.length, terms.shared_heads, terms.head_dim}, 3, dtype),
          RandomOperand({pass.length, terms.heads * terms.head_dim}, 4, dtype)};
}

Tensors Forward(Attention& attention, const Inputs& in) {
  const c10::AutoGradMode no_grad(false);
  return {attention(0, in.q, in.k, in.v)};
}

Tensors ForwardAndBackward(Attention& attention, const Inputs& in) {
  const auto leaf = [](const at::Tensor& x) { return x.detach().set_requires_grad(true); };
  const Tensors leaves = {leaf(in.q), leaf(in.k), leaf(in.v)};
  return torch::autograd::grad({attention(0, leaves[0], leaves[1], leaves[2])}, leaves, {in.direction});
}

struct Shape {
  std::string name;
  data::RowPass pass;
  AttentionTerms terms;
  bool compared = true;
};

void AddChecks(Shape shape, at::ScalarType dtype, at::Device device, const CudaKernels& kernels,
               std::vector<KernelCheck>& checks) {
  AttentionTerms& terms = shape.terms;
  terms.scale = 1.0 / std::sqrt(static_cast<double>(terms.head_dim));
  const Inputs in = InputsOf(shape.pass, terms, dtype);
  Tensors forward, gradients;
  if (shape.compared) {
    const Inputs wide = in.Each([](const at::Tensor& x) { return x.to(at::kDouble); });
    const auto exact = MakeTreeAttention(shape.pass, terms);
    forward = Forward(*exact, wide);
    gradients = ForwardAndBackward(*exact, wide);
  }
  const std::shared_ptr<Attention> made = MakeTreeAttentionOnCuda(shape.pass, terms, dtype, device, kernels);
  const auto kernel = [made]() -> Attention& {
    if (made == nullptr) throw ExitError(ExitCode::kInternal, "no kernel serves this shape");
    return *made;
  };
  const Inputs there = in.Each([&](const at::Tensor& x) { return x.to(device); });
  const double product = 2.0 * static_cast<double>(VisiblePairs(shape.pass) * terms.heads * terms.head_dim);
  const double bytes =
      static_cast<double>(2 * (terms.heads + terms.shared_heads) * shape.pass.length * terms.head_dim) *
      static_cast<double>(elementSize(dtype));
  // What every test on this kernel allows: roundings of fp32 sums, and those of bf16 to 2^-9 in sums that
  // cancel.
  const double allowed = dtype == at::kFloat ? 1e-4 : 3e-2;
  checks.push_back({.name = "attention of " + shape.name,
                    .dtype = dtype,
                    .run = [=] { return Forward(kernel(), there); },
                    .wanted = forward,
                    .allowed_relative_error = allowed,
                    .bytes = bytes,
                    .flops = 2.0 * product});
  checks.push_back({.name = "attention and its gradient of " + shape.name,
                    .dtype = dtype,
                    .run = [=] { return ForwardAndBackward(kernel(), there); },
                    .wanted = gradients,
                    .allowed_relative_error = allowed,
                    .bytes = 3.0 * bytes,
                    .flops = 9.0 * product});
}

}  // namespace

std::vector<KernelCheck> AttentionChecks(at::Device device, bool tiny, const CudaKernels& kernels) {
  // Shapes that show a fault: windows, bounded scores, wide heads, a number of rows that fills no block.
  std::vector<Shape> shapes = {
      {"301 rows, heads of 64",
       Groups(301, 70, 4, 25),
       {.window_of_layer = {0}, .heads = 4, .shared_heads = 1, .head_dim = 64}},
      {"130 rows, heads of 256",
       Groups(130, 40, 3, 20),
       {.window_of_layer = {33}, .softcap = 20.0, .heads = 4, .shared_heads = 2, .head_dim = 256}},
      {(tiny ? "150" : "608") + std::string(" rows, heads of 128"),
       Groups(tiny ? 150 : 608, 200, 16, 25),
       {.window_of_layer = {0}, .heads = 8, .shared_heads = 2, .head_dim = 128}}};
  if (device.is_cuda()) {
    shapes.push_back({"a 7B layer, 8192 rows",
                      Groups(8192, 200, 16, 25),
                      {.window_of_layer = {0}, .heads = 32, .shared_heads = 8, .head_dim = 128},
                      /*compared=*/false});
  }
  std::vector<KernelCheck> checks;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Shape& shape : shapes) AddChecks(shape, dtype, device, kernels, checks);
  }
  return checks;
}

}  // namespace plural::trainer
