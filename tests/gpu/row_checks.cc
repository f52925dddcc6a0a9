#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <utility>

#include "tests/gpu/kernel_checks.h"
#include "tests/gpu/random_operand.h"
#include "trainer/ops/adamw_cuda.h"
#include "trainer/ops/dropout.h"
#include "trainer/ops/dropout_cuda.h"
#include "trainer/ops/joined_rows.h"
#include "trainer/ops/nf4.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/pointwise_cuda.h"
#include "trainer/ops/softmax_rows.h"
#include "trainer/ops/softmax_rows_cuda.h"

namespace plural::trainer {
namespace {

using Tensors = std::vector<at::Tensor>;

// What every test on these kernels allows: roundings of fp32 sums; and of bf16, where two that are nearly
// equal may be rounded to neighbours, up to 2^-7 of the largest apart.
double Allowed(at::ScalarType dtype) { return dtype == at::kFloat ? 1e-5 : 1.0 / 128; }

double BytesOf(const at::Tensor& x) { return static_cast<double>(x.nbytes()); }

class Rows {
 public:
  Rows(at::Device device, bool tiny, const CudaKernels& kernels)
      : device_(device), tiny_(tiny), kernels_(&kernels) {}

  std::vector<KernelCheck> All() {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      Norm(dtype);
      Gate(dtype, true);
      Gate(dtype, false);
      Rotation(dtype);
      JoinedHeads(dtype);
      JoinedGates(dtype);
      DroppedInputs(dtype);
      if (device_.is_cuda()) DropoutAndNf4(dtype);
    }
    LogitStatistics();
    LogitGradient();
    Optimizer();
    return std::move(checks_);
  }

 private:
  std::int64_t Count() const { return tiny_ ? 5 : 4096; }
  std::int64_t GateWidth() const { return tiny_ ? 512 : 14336; }
  at::Tensor There(const at::Tensor& x) const { return x.detach().to(device_); }
  at::Tensor Drawn(std::int64_t columns, std::uint64_t key, at::ScalarType dtype) const {
    return RandomOperand({Count(), columns}, key, dtype);
  }

  void Norm(at::ScalarType dtype) {
    const std::int64_t columns = 4096;
    const at::Tensor x = Drawn(columns, 1, dtype).set_requires_grad(true), branch = Drawn(columns, 2, dtype);
    const at::Tensor weight = RandomOperand({columns}, 3, at::kFloat).set_requires_grad(true);
    const at::Tensor dnorm = Drawn(columns, 4, dtype), dsum = Drawn(columns, 5, dtype);
    constexpr double kEps = 1e-5;
    const SumAndNorm wanted = AddRmsNorm(x, branch, weight, {.eps = kEps});
    const at::Tensor sum = wanted.sum_NE.detach();
    const at::Tensor rstd = (sum.to(at::kFloat).square().mean(1, true) + kEps).rsqrt();
    const auto forward = [kernels = kernels_, x = There(x), branch = There(branch), weight = There(weight)] {
      return NormOnCuda(x, branch, weight, kEps, kernels).value();
    };
    checks_.push_back({.name = "add and norm",
                       .dtype = dtype,
                       .run =
                           [forward] {
                             const NormAndSum made = forward();
                             return Tensors{made.sum_NE, made.norm_NE};
                           },
                       .wanted = {wanted.sum_NE, wanted.norm_NE},
                       .allowed_relative_error = Allowed(dtype),
                       .bytes = 4.0 * BytesOf(x)});
    checks_.push_back(
        {.name = "gradient of add and norm",
         .dtype = dtype,
         .run =
             [kernels = kernels_, sum = There(sum), rstd = There(rstd), weight = There(weight),
              dnorm = There(dnorm), dsum = There(dsum)] {
               const auto back = NormBackwardOnCuda(sum, rstd, weight, dnorm, dsum, true, kernels).value();
               return Tensors{back.dx_NE, back.dweight_E};
             },
         .wanted = torch::autograd::grad({wanted.norm_NE, wanted.sum_NE}, {x, weight}, {dnorm, dsum}),
         .allowed_relative_error = Allowed(dtype),
         .bytes = 4.0 * BytesOf(x)});
  }

  void Gate(at::ScalarType dtype, bool silu) {
    const auto draw = [&](std::uint64_t key) { return Drawn(GateWidth(), key, dtype).mul_(3.0); };
    const at::Tensor gate = draw(1).set_requires_grad(true), up = draw(2).set_requires_grad(true),
                     dout = draw(3);
    const at::Tensor wanted = GatedActivation(silu ? Activation::kSilu : Activation::kGeluTanh, gate, up);
    const std::string name = silu ? "SwiGLU" : "GeGLU";
    checks_.push_back({.name = name,
                       .dtype = dtype,
                       .run = [kernels = kernels_, gate = There(gate), up = There(up),
                               silu] { return Tensors{GatedOnCuda(gate, up, silu, kernels)}; },
                       .wanted = {wanted},
                       .allowed_relative_error = Allowed(dtype),
                       .bytes = 3.0 * BytesOf(gate)});
    checks_.push_back(
        {.name = "gradient of " + name,
         .dtype = dtype,
         .run =
             [kernels = kernels_, gate = There(gate), up = There(up), dout = There(dout), silu] {
               const auto back = GatedBackwardOnCuda(gate, up, dout, silu, kernels).value();
               return Tensors{back.dgate_NF, back.dup_NF};
             },
         .wanted = torch::autograd::grad({wanted}, {gate, up}, {dout}),
         .allowed_relative_error = Allowed(dtype),
         .bytes = 5.0 * BytesOf(gate)});
  }

  static constexpr std::int64_t kHeadDim = 128;

  RotaryTable Table(at::ScalarType dtype) const {
    return MakeRotaryTable(at::arange(Count(), at::kInt), kHeadDim, Rope{}, dtype);
  }
  RotaryTable There(const RotaryTable& table) const { return {There(table.cos_ND2), There(table.sin_ND2)}; }

  void Rotation(at::ScalarType dtype) {
    const at::Tensor x = Drawn((tiny_ ? 2 : 32) * kHeadDim, 1, dtype);
    const RotaryTable table = Table(dtype);
    checks_.push_back({.name = "rotation",
                       .dtype = dtype,
                       .run =
                           [kernels = kernels_, x = There(x), table = There(table)] {
                             return Tensors{RotatedOnCuda(x, table.cos_ND2, table.sin_ND2, false, kernels)};
                           },
                       .wanted = {Rotate(x, table)},
                       .allowed_relative_error = Allowed(dtype),
                       .bytes = 2.0 * BytesOf(x)});
  }

  // What `forward` makes of x, and x's gradient.
  template <class Function>
  static Tensors WithGradient(const at::Tensor& x, const Tensors& directions, const Function& forward) {
    const at::Tensor leaf = x.detach().set_requires_grad(true);
    const Tensors results = forward(leaf);
    Tensors all;
    for (const at::Tensor& result : results) all.push_back(result.detach());
    all.push_back(torch::autograd::grad(results, {leaf}, directions)[0]);
    return all;
  }

  // Query, key and value heads of one product.
  void JoinedHeads(at::ScalarType dtype) {
    const std::int64_t keys = tiny_ ? 1 : 8, queries = 4 * keys;
    const auto rotate = [=](const RotaryTable& table, const CudaKernels* kernels) {
      return [=](const at::Tensor& rows) { return RotateJoined(rows, table, queries, keys, kernels); };
    };
    const at::Tensor x = Drawn((queries + 2 * keys) * kHeadDim, 1, dtype);
    const Tensors directions = {Drawn(queries * kHeadDim, 3, dtype), Drawn(keys * kHeadDim, 4, dtype),
                                Drawn(keys * kHeadDim, 5, dtype)};
    Tensors there;
    for (const at::Tensor& direction : directions) there.push_back(There(direction));
    const RotaryTable table = Table(dtype);
    checks_.push_back(
        {.name = "rotation of joined rows and its gradient",
         .dtype = dtype,
         .run = [x = There(x), there,
                 forward = rotate(There(table), kernels_)] { return WithGradient(x, there, forward); },
         .wanted = WithGradient(x, directions, rotate(table, nullptr)),
         .allowed_relative_error = Allowed(dtype),
         .bytes = 4.0 * BytesOf(x)});
  }

  // Gate and up of one product.
  void JoinedGates(at::ScalarType dtype) {
    const auto gate = [](const CudaKernels* kernels) {
      return [=](const at::Tensor& rows) { return Tensors{GateJoined(Activation::kSilu, rows, kernels)}; };
    };
    const at::Tensor x = Drawn(2 * GateWidth(), 2, dtype).mul_(3.0), dout = Drawn(GateWidth(), 6, dtype);
    checks_.push_back({.name = "SwiGLU of joined rows and its gradient",
                       .dtype = dtype,
                       .run = [x = There(x), dout = There(dout),
                               forward = gate(kernels_)] { return WithGradient(x, {dout}, forward); },
                       .wanted = WithGradient(x, {dout}, gate(nullptr)),
                       .allowed_relative_error = Allowed(dtype),
                       .bytes = 4.0 * BytesOf(x)});
  }

  // Of q, k and v.
  void DroppedInputs(at::ScalarType dtype) {
    const CudaKernels* const given = device_.is_cuda() ? nullptr : kernels_;
    const at::Tensor key = at::arange(Count(), at::kLong);
    std::vector<Dropout> places;
    for (const std::uint64_t place : {0, 1, 2}) places.push_back(Dropout{key, 3, There(key)}.At(place));
    const at::Tensor x = Drawn(4096, 1, dtype), dx = RandomOperand({3, Count(), 4096}, 2, dtype);
    Tensors wanted;
    const at::Tensor sum = x.clone();
    for (std::size_t place = 0; place < 3; ++place) {
      wanted.push_back(Dropped(places[place], 0.1, x));
      sum.add_(Dropped(places[place], 0.1, dx.select(0, static_cast<std::int64_t>(place))));
    }
    checks_.push_back({.name = "dropped inputs",
                       .dtype = dtype,
                       .run = [=, x = There(x)] { return DroppedTogether(places, 0.1, x, given).unbind(); },
                       .wanted = wanted,
                       .bytes = 4.0 * BytesOf(x)});
    checks_.push_back({.name = "gradient of dropped inputs",
                       .dtype = dtype,
                       .run =
                           [=, sum = There(x.clone()), dx = There(dx)] {
                             AddDropped(sum, places, 0.1, dx, given);
                             return Tensors{sum};
                           },
                       .wanted = {sum},
                       .bytes = 5.0 * BytesOf(x)});
  }

  // These two have no emulation.
  void DropoutAndNf4(at::ScalarType dtype) {
    const at::Tensor x = Drawn(4096, 1, dtype), key = at::arange(Count(), at::kLong);
    checks_.push_back(
        {.name = "dropout",
         .dtype = dtype,
         .run = [x = There(x),
                 dropout = Dropout{key, 3, There(key)}] { return Tensors{Dropped(dropout, 0.1, x)}; },
         .wanted = {Dropped(Dropout{key, 3}, 0.1, x)},
         .bytes = 2.0 * BytesOf(x)});
    const Nf4Weight packed = QuantizeToNf4(RandomOperand({4096, 4096}, 2, at::kFloat), true);
    checks_.push_back(
        {.name = "NF4",
         .dtype = dtype,
         .run = [there = packed.To(device_), dtype] { return Tensors{there.Dequantized(dtype)}; },
         .wanted = {packed.Dequantized(dtype)},
         .bytes = 4096.0 * 4096.0 * (0.52 + static_cast<double>(elementSize(dtype)))});
  }

  // A chunk of the head's rows.
  at::Tensor Logits() const {
    return RandomOperand({tiny_ ? 5 : 256, tiny_ ? 700 : 32000}, 1, at::kFloat).mul_(8.0);
  }

  void LogitStatistics() {
    const at::Tensor z = Logits();
    const RowStatistics wanted = StatisticsOfRows(z);
    checks_.push_back({.name = "statistics of logits",
                       .dtype = at::kFloat,
                       .run =
                           [kernels = kernels_, z = There(z)] {
                             const auto found = StatisticsOfRowsOnCuda(z, 1.0, kernels).value();
                             return Tensors{found.lse_R, found.entropy_nats_R};
                           },
                       .wanted = {wanted.lse_R, wanted.entropy_nats_R},
                       .allowed_relative_error = 1e-5,
                       .bytes = BytesOf(z)});
  }

  void LogitGradient() {
    const at::Tensor z = Logits();
    const at::Tensor lse = StatisticsOfRows(z).lse_R, c = RandomOperand({z.size(0)}, 2, at::kDouble);
    at::Tensor wanted = z.clone();
    RowGradient(wanted, lse, {.a_R = {}, .b_R = {}, .c_R = c},
                {.row_E = at::zeros({0}, at::kLong),
                 .target_E = at::zeros({0}, at::kLong),
                 .t_E = at::zeros({0}, at::kDouble),
                 .log_one_minus_p_E = at::zeros({0}, at::kDouble)});
    checks_.push_back({.name = "gradient of logits",
                       .dtype = at::kFloat,
                       .run =
                           [lse = There(lse), c = There(c), kernels = kernels_, z = There(z.clone())] {
                             RowGradientOnGpu(z, lse, c, 0.0, kernels);
                             return Tensors{z};
                           },
                       .wanted = {wanted},
                       .allowed_relative_error = 3e-5,
                       .bytes = 2.0 * BytesOf(z)});
  }

  void Optimizer() {
    const std::int64_t size = tiny_ ? 5000 : std::int64_t{1} << 24;
    const auto draw = [&](std::uint64_t key) { return RandomOperand({size}, key, at::kFloat); };
    const AdamWBuffers host{draw(1), draw(2), draw(3), draw(4).square_()};
    const auto copy = [&](const at::Tensor& x) { return There(x.clone()); };
    const AdamWBuffers there{copy(host.values), copy(host.gradients), copy(host.first_moment),
                             copy(host.second_moment)};
    const AdamWScalars<double> scalars{.gradient_scale = 0.3,
                                       .decay = 0.999,
                                       .one_minus_beta1 = 1.0 - 0.9,
                                       .beta2 = 0.999,
                                       .one_minus_beta2 = 1.0 - 0.999,
                                       .correction2_sqrt = 0.4,
                                       .eps = 1e-8,
                                       .step_size = 1e-3};
    // The kernel's source on the host; a unit test compares that with the CPU's loop.
    const auto rounded = gpu::RoundedTo<float>(scalars);
    for (std::int64_t i = 0; i < size; ++i) {
      gpu::UpdateElement(host.values.mutable_data_ptr<float>() + i,
                         host.gradients.const_data_ptr<float>() + i,
                         host.first_moment.mutable_data_ptr<float>() + i,
                         host.second_moment.mutable_data_ptr<float>() + i, rounded);
    }
    checks_.push_back({.name = "AdamW",
                       .dtype = at::kFloat,
                       .run =
                           [there, scalars, kernels = kernels_] {
                             UpdateByKernel(there, scalars, kernels);
                             return Tensors{there.values, there.first_moment, there.second_moment};
                           },
                       .wanted = {host.values, host.first_moment, host.second_moment},
                       .bytes = 28.0 * static_cast<double>(size)});
  }

  at::Device device_;
  bool tiny_;
  const CudaKernels* kernels_;
  std::vector<KernelCheck> checks_;
};

}  // namespace

std::vector<KernelCheck> RowChecks(at::Device device, bool tiny, const CudaKernels& kernels) {
  return Rows(device, tiny, kernels).All();
}

}  // namespace plural::trainer
