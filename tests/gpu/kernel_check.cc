// Compares each kernel of the module with the loops of the CPU, and says how fast it is.
//
//   kernel_check --device cuda           on a GPU, in seconds; 69 where there is none or no module
//   kernel_check --device cpu [--tiny]   the kernels' own source, emulated on the host: results, no times
//
// A line of JSON per kernel on standard output. Ends with 1 when one fails.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "tests/gpu/generation_check.h"
#include "tests/gpu/random_operand.h"
#include "tests/unit/support/emulated_kernels.h"
#include "trainer/base/error.h"
#include "trainer/ops/adamw_cuda.h"
#include "trainer/ops/dropout.h"
#include "trainer/ops/dropout_cuda.h"
#include "trainer/ops/joined_rows.h"
#include "trainer/ops/nf4.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/pointwise_cuda.h"
#include "trainer/ops/softmax_rows.h"
#include "trainer/ops/softmax_rows_cuda.h"
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

struct Work {
  double bytes = 0, flops = 0;  // of one run
};

class KernelCheck {
 public:
  KernelCheck(at::Device device, bool tiny)
      : device_(device),
        tiny_(tiny),
        kernels_(device.is_cuda() ? FindCudaKernels() : testing::EmulatedKernels()) {
    if (!device_.is_cuda()) return;
    const std::int64_t side = 8192;  // random operands: constants cost a GPU less power, and run faster
    const at::Tensor rows = RandomOperand({64, side}, 1, at::kBFloat16).to(device_).repeat({side / 64, 1});
    peak_flops_ =
        2.0 * static_cast<double>(side * side * side) / Seconds([&] { return Tensors{at::mm(rows, rows)}; });
    const at::Tensor from = at::empty({std::int64_t{1} << 28}, OnDevice(at::kFloat)),
                     to = at::empty_like(from);
    peak_bytes_ = 2.0 * static_cast<double>(from.nbytes()) / Seconds([&] { return Tensors{to.copy_(from)}; });
  }

  int Run() {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      // Shapes that show a fault: windows, bounded scores, wide heads, a number of rows that fills no block.
      Attention(dtype, Groups(301, 70, 4, 25),
                {.window_of_layer = {0}, .heads = 4, .shared_heads = 1, .head_dim = 64});
      Attention(dtype, Groups(130, 40, 3, 20),
                {.window_of_layer = {33}, .softcap = 20.0, .heads = 4, .shared_heads = 2, .head_dim = 256});
      Attention(dtype, Groups(tiny_ ? 150 : 608, 200, 16, 25),
                {.window_of_layer = {0}, .heads = 8, .shared_heads = 2, .head_dim = 128});
      Norm(dtype);
      Gate(dtype, true);
      Gate(dtype, false);
      Rotation(dtype);
      JoinedRows(dtype);
      DroppedInputs(dtype);
      if (device_.is_cuda()) {
        DropoutAndNf4(dtype);
        TimeAttention(dtype);
      }
    }
    Logits();
    for (const GenerationCheck& check : GenerationChecks(device_, tiny_, kernels_))
      Report(check.name, check.dtype, check.run, check.wanted, check.allowed, {.bytes = check.bytes});
    Optimizer();
    return failed_ ? 1 : 0;
  }

 private:
  at::TensorOptions OnDevice(at::ScalarType dtype) const {
    return at::TensorOptions().dtype(dtype).device(device_);
  }
  std::int64_t Rows() const { return tiny_ ? 5 : 4096; }
  // What every test on these kernels allows: roundings of fp32 sums, and those of bf16 to 2^-9 in sums that
  // cancel.
  static double Allowed(at::ScalarType dtype, bool attention) {
    if (dtype == at::kFloat) return attention ? 1e-4 : 1e-5;
    return attention ? 3e-2 : 1.0 / 256;
  }

  template <class Function>
  double Seconds(const Function& function) const {
    const auto finish = [](const Tensors& made) { made.back().flatten().select(0, 0).item(); };
    for (int i = 0; i < 3; ++i) finish(function());
    constexpr int kRuns = 10;
    const auto start = std::chrono::steady_clock::now();
    Tensors last;
    for (int i = 0; i < kRuns; ++i) last = function();
    finish(last);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kRuns;
  }

  // `wanted`, on the CPU, may be empty: then only the time is asked for.
  template <class Function>
  void Report(const std::string& name, at::ScalarType dtype, const Function& function, const Tensors& wanted,
              double allowed, const Work& work) {
    nlohmann::ordered_json line = {{"check", name + (dtype == at::kFloat ? ", fp32" : ", bf16")}};
    const Tensors found = function();
    double apart = 0.0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const at::Tensor right = wanted[i].detach().to(at::kDouble);
      const at::Tensor difference = found[i].detach().to(at::kCPU).to(at::kDouble) - right;
      const double size = right.abs().max().item<double>();
      const double error = difference.abs().max().item<double>() / (size > 0 ? size : 1.0);
      apart = std::isfinite(error) ? std::max(apart, error) : error;
    }
    const bool passed = apart <= allowed;
    failed_ = failed_ || !passed;
    line["passed"] = passed;
    if (!wanted.empty()) {
      line["largest_relative_difference"] = apart;
      line["allowed"] = allowed;
    }
    if (device_.is_cuda()) {
      const double seconds = Seconds(function);
      line["microseconds"] = 1e6 * seconds;
      line["gigabytes_per_second"] = work.bytes / seconds / 1e9;
      line["share_of_copy"] = work.bytes / seconds / peak_bytes_;
      if (work.flops > 0) {
        line["teraflops_per_second"] = work.flops / seconds / 1e12;
        line["share_of_bf16_product"] = work.flops / seconds / peak_flops_;
      }
    }
    std::cout << line.dump() << std::endl;
  }

  struct AttentionInputs {
    at::Tensor q, k, v, direction;
  };
  AttentionInputs InputsOf(const data::RowPass& pass, const AttentionTerms& terms,
                           at::ScalarType dtype) const {
    return {RandomOperand({pass.length, terms.heads, terms.head_dim}, 1, dtype).mul_(3.0),
            RandomOperand({pass.length, terms.shared_heads, terms.head_dim}, 2, dtype).mul_(3.0),
            RandomOperand({pass.length, terms.shared_heads, terms.head_dim}, 3, dtype),
            RandomOperand({pass.length, terms.heads * terms.head_dim}, 4, dtype)};
  }

  static Tensors Forward(trainer::Attention& attention, const AttentionInputs& in, at::Device device) {
    const c10::AutoGradMode no_grad(false);
    return {attention(0, in.q.to(device), in.k.to(device), in.v.to(device))};
  }
  static Tensors ForwardAndBackward(trainer::Attention& attention, const AttentionInputs& in,
                                    at::Device device) {
    const auto leaf = [&](const at::Tensor& x) { return x.to(device).detach().set_requires_grad(true); };
    const Tensors leaves = {leaf(in.q), leaf(in.k), leaf(in.v)};
    const at::Tensor out = attention(0, leaves[0], leaves[1], leaves[2]);
    return torch::autograd::grad({out}, leaves, {in.direction.to(device)});
  }
  static Work WorkOf(const data::RowPass& pass, const AttentionTerms& terms, at::ScalarType dtype,
                     bool backward) {
    const double product = 2.0 * static_cast<double>(VisiblePairs(pass) * terms.heads * terms.head_dim);
    const double row =
        static_cast<double>(pass.length * terms.head_dim) * static_cast<double>(elementSize(dtype));
    const auto heads = static_cast<double>(2 * (terms.heads + terms.shared_heads));
    return {.bytes = (backward ? 3.0 : 1.0) * heads * row, .flops = (backward ? 9.0 : 2.0) * product};
  }

  void Attention(at::ScalarType dtype, const data::RowPass& pass, AttentionTerms terms) {
    terms.scale = 1.0 / std::sqrt(static_cast<double>(terms.head_dim));
    const AttentionInputs in = InputsOf(pass, terms, dtype);
    const AttentionInputs wide = {in.q.to(at::kDouble), in.k.to(at::kDouble), in.v.to(at::kDouble),
                                  in.direction.to(at::kDouble)};
    const auto exact = MakeTreeAttention(pass, terms);
    const auto kernel = MakeTreeAttentionOnCuda(pass, terms, dtype, device_, kernels_);
    if (kernel == nullptr) {
      failed_ = true;
      std::cout << R"({"check": "tree attention", "passed": false, "error": "no kernel serves"})"
                << std::endl;
      return;
    }
    const std::string name =
        " of " + std::to_string(pass.length) + " rows, heads of " + std::to_string(terms.head_dim);
    Report(
        "attention" + name, dtype, [&] { return Forward(*kernel, in, device_); },
        Forward(*exact, wide, at::kCPU), Allowed(dtype, true), WorkOf(pass, terms, dtype, false));
    Report(
        "attention and its gradient" + name, dtype, [&] { return ForwardAndBackward(*kernel, in, device_); },
        ForwardAndBackward(*exact, wide, at::kCPU), Allowed(dtype, true), WorkOf(pass, terms, dtype, true));
  }

  // The shape of a 7B model's layer, on rows that lie on the GPU already.
  void TimeAttention(at::ScalarType dtype) {
    const data::RowPass pass = Groups(8192, 200, 16, 25);
    const AttentionTerms terms{
        .window_of_layer = {0}, .scale = 0.088, .heads = 32, .shared_heads = 8, .head_dim = 128};
    const AttentionInputs host = InputsOf(pass, terms, dtype);
    const AttentionInputs in = {host.q.to(device_), host.k.to(device_), host.v.to(device_),
                                host.direction.to(device_)};
    const auto kernel = MakeTreeAttentionOnCuda(pass, terms, dtype, device_, kernels_);
    Report(
        "attention of a 7B layer, 8192 rows", dtype, [&] { return Forward(*kernel, in, device_); }, {}, 0.0,
        WorkOf(pass, terms, dtype, false));
    Report(
        "attention and its gradient of a 7B layer, 8192 rows", dtype,
        [&] { return ForwardAndBackward(*kernel, in, device_); }, {}, 0.0, WorkOf(pass, terms, dtype, true));
  }

  void Norm(at::ScalarType dtype) {
    const std::int64_t count = 4096;
    const auto draw = [&](std::uint64_t key) { return RandomOperand({Rows(), count}, key, dtype); };
    const at::Tensor x = draw(1).set_requires_grad(true), branch = draw(2), dnorm = draw(4), dsum = draw(5);
    const at::Tensor weight = RandomOperand({count}, 3, at::kFloat).set_requires_grad(true);
    const SumAndNorm wanted = AddRmsNorm(x, branch, weight, {.eps = 1e-5});
    const Tensors gradients =
        torch::autograd::grad({wanted.norm_NE, wanted.sum_NE}, {x, weight}, {dnorm, dsum});
    const auto there = [&](const at::Tensor& t) { return t.detach().to(device_); };
    const at::Tensor x_there = there(x), branch_there = there(branch), weight_there = there(weight);
    const at::Tensor dnorm_there = there(dnorm), dsum_there = there(dsum);
    const Work work{.bytes = 4.0 * static_cast<double>(x.nbytes())};
    const auto forward = [&] { return *NormOnCuda(x_there, branch_there, weight_there, 1e-5, &kernels_); };
    const NormAndSum made = forward();
    Report(
        "add and norm", dtype,
        [&] {
          const NormAndSum again = forward();
          return Tensors{again.sum_NE, again.norm_NE};
        },
        {wanted.sum_NE, wanted.norm_NE}, Allowed(dtype, false), work);
    Report(
        "gradient of add and norm", dtype,
        [&] {
          const auto back = NormBackwardOnCuda(made.sum_NE, made.rstd_N1, weight_there, dnorm_there,
                                               dsum_there, true, &kernels_);
          return Tensors{back->dx_NE, back->dweight_E};
        },
        gradients, Allowed(dtype, false), work);
  }

  void Gate(at::ScalarType dtype, bool silu) {
    const auto draw = [&](std::uint64_t key) {
      return RandomOperand({Rows(), tiny_ ? 512 : 14336}, key, dtype).mul_(3.0);
    };
    const at::Tensor gate = draw(1).set_requires_grad(true), up = draw(2).set_requires_grad(true),
                     dout = draw(3);
    const at::Tensor wanted = GatedActivation(silu ? Activation::kSilu : Activation::kGeluTanh, gate, up);
    const Tensors gradients = torch::autograd::grad({wanted}, {gate, up}, {dout});
    const at::Tensor gate_there = gate.detach().to(device_), up_there = up.detach().to(device_);
    const at::Tensor dout_there = dout.to(device_);
    const auto bytes = static_cast<double>(gate.nbytes());
    const std::string name = silu ? "SwiGLU" : "GeGLU";
    Report(name, dtype, [&] { return Tensors{GatedOnCuda(gate_there, up_there, silu, &kernels_)}; }, {wanted},
           Allowed(dtype, false), {.bytes = 3.0 * bytes});
    Report("gradient of " + name, dtype,
           [&] {
             const auto back = GatedBackwardOnCuda(gate_there, up_there, dout_there, silu, &kernels_);
             return Tensors{back->dgate_NF, back->dup_NF};
           },
           gradients, Allowed(dtype, false), {.bytes = 5.0 * bytes});
  }

  void Rotation(at::ScalarType dtype) {
    const std::int64_t dim = 128, heads = tiny_ ? 2 : 32;
    const at::Tensor x = RandomOperand({Rows(), heads * dim}, 1, dtype);
    const RotaryTable table = MakeRotaryTable(at::arange(Rows(), at::kInt), dim, Rope{}, dtype);
    const at::Tensor x_there = x.to(device_);
    const at::Tensor cos_there = table.cos_ND2.to(device_), sin_there = table.sin_ND2.to(device_);
    Report("rotation", dtype,
           [&] { return Tensors{RotatedOnCuda(x_there, cos_there, sin_there, false, &kernels_)}; },
           {Rotate(x, table)}, Allowed(dtype, false), {.bytes = 2.0 * static_cast<double>(x.nbytes())});
  }

  // Query, key and value heads, and gate and up, of one product each; their gradients, too.
  void JoinedRows(at::ScalarType dtype) {
    const std::int64_t dim = 128, keys = tiny_ ? 1 : 8, queries = 4 * keys, width = tiny_ ? 512 : 14336;
    const RotaryTable table = MakeRotaryTable(at::arange(Rows(), at::kInt), dim, Rope{}, dtype);
    const RotaryTable there = {table.cos_ND2.to(device_), table.sin_ND2.to(device_)};
    const auto run = [](const Tensors& results, const at::Tensor& leaf, const Tensors& directions) {
      Tensors all;
      for (const at::Tensor& result : results) all.push_back(result.detach());
      all.push_back(torch::autograd::grad(results, {leaf}, directions)[0]);
      return all;
    };
    const auto leaf = [](const at::Tensor& x, at::Device device) {
      return x.to(device).detach().set_requires_grad(true);
    };
    const auto drawn = [&](std::int64_t columns, std::uint64_t key) {
      return RandomOperand({Rows(), columns}, key, dtype);
    };
    const at::Tensor heads = drawn((queries + 2 * keys) * dim, 1);
    const at::Tensor host_heads = leaf(heads, at::kCPU), heads_there = leaf(heads, device_);
    const Tensors dheads = {drawn(queries * dim, 3), drawn(keys * dim, 4), drawn(keys * dim, 5)};
    const Tensors dheads_there = {dheads[0].to(device_), dheads[1].to(device_), dheads[2].to(device_)};
    Report("rotation of joined rows and its gradient", dtype,
           [&] {
             return run(RotateJoined(heads_there, there, queries, keys, &kernels_), heads_there,
                        dheads_there);
           },
           run(RotateJoined(host_heads, table, queries, keys), host_heads, dheads), Allowed(dtype, false),
           {.bytes = 4.0 * static_cast<double>(heads.nbytes())});
    const at::Tensor gate_up = drawn(2 * width, 2).mul_(3.0), dout = drawn(width, 6);
    const at::Tensor host_gates = leaf(gate_up, at::kCPU), gates_there = leaf(gate_up, device_);
    const at::Tensor dout_there = dout.to(device_);
    Report("SwiGLU of joined rows and its gradient", dtype,
           [&] {
             return run({GateJoined(Activation::kSilu, gates_there, &kernels_)}, gates_there, {dout_there});
           },
           run({GateJoined(Activation::kSilu, host_gates)}, host_gates, {dout}), Allowed(dtype, false),
           {.bytes = 4.0 * static_cast<double>(gate_up.nbytes())});
  }

  // Of q, k and v, equal to the bit.
  void DroppedInputs(at::ScalarType dtype) {
    const CudaKernels* const given = device_.is_cuda() ? nullptr : &kernels_;
    const at::Tensor key = at::arange(Rows(), at::kLong);
    std::vector<Dropout> places;
    for (const std::uint64_t place : {0, 1, 2}) places.push_back(Dropout{key, 3, key.to(device_)}.At(place));
    const at::Tensor x = RandomOperand({Rows(), 4096}, 1, dtype),
                     dx = RandomOperand({3, Rows(), 4096}, 2, dtype);
    Tensors wanted;
    const at::Tensor sum = x.clone();
    for (std::size_t place = 0; place < 3; ++place) {
      wanted.push_back(Dropped(places[place], 0.1, x));
      sum.add_(Dropped(places[place], 0.1, dx.select(0, static_cast<std::int64_t>(place))));
    }
    const at::Tensor x_there = x.to(device_), dx_there = dx.to(device_);
    Report("dropped inputs", dtype, [&] { return DroppedTogether(places, 0.1, x_there, given).unbind(); },
           wanted, 0.0, {.bytes = 4.0 * static_cast<double>(x.nbytes())});
    // In place, as below.
    const at::Tensor sum_there = x.clone().to(device_);
    Report("gradient of dropped inputs", dtype,
           [&] {
             AddDropped(sum_there, places, 0.1, dx_there, given);
             return Tensors{sum_there};
           },
           {sum}, 0.0, {.bytes = 5.0 * static_cast<double>(x.nbytes())});
  }

  // A chunk of the head's rows.
  void Logits() {
    const at::Tensor z = RandomOperand({tiny_ ? 5 : 256, tiny_ ? 700 : 32000}, 1, at::kFloat).mul_(8.0);
    const RowStatistics wanted = StatisticsOfRows(z);
    const at::Tensor z_there = z.to(device_);
    const auto bytes = static_cast<double>(z.nbytes());
    Report("statistics of logits", at::kFloat,
           [&] {
             const auto found = StatisticsOfRowsOnCuda(z_there, 1.0, &kernels_);
             return Tensors{found->lse_R, found->entropy_nats_R};
           },
           {wanted.lse_R, wanted.entropy_nats_R}, 1e-5, {.bytes = bytes});
    const at::Tensor c = RandomOperand({z.size(0)}, 2, at::kDouble),
                     h = RandomOperand({z.size(0)}, 3, at::kDouble);
    at::Tensor gradient = z.clone();
    RowGradient(gradient, wanted, {.a_R = {}, .b_R = {}, .c_R = c, .h_R = h},
                {.row_E = at::zeros({0}, at::kLong),
                 .target_E = at::zeros({0}, at::kLong),
                 .t_E = at::zeros({0}, at::kDouble),
                 .log_one_minus_p_E = at::zeros({0}, at::kDouble)});
    const DenseTerms terms = {wanted.lse_R.to(device_), wanted.entropy_nats_R.to(device_), c.to(device_),
                              h.to(device_)};
    // In place: the first run is compared, and those that are timed overwrite what they find.
    Report("gradient of logits", at::kFloat,
           [&] {
             RowGradientOnGpu(z_there, terms, 0.0, &kernels_);
             return Tensors{z_there};
           },
           {gradient}, 3e-5, {.bytes = 2.0 * bytes});
  }

  // Equal to the bit. In place, as above.
  void Optimizer() {
    const std::int64_t size = tiny_ ? 5000 : std::int64_t{1} << 24;
    const auto draw = [&](std::uint64_t key) { return RandomOperand({size}, key, at::kFloat); };
    const AdamWBuffers host{draw(1), draw(2), draw(3), draw(4).square_()};
    const AdamWBuffers there{host.values.to(device_, at::kFloat, false, true),
                             host.gradients.to(device_, at::kFloat, false, true),
                             host.first_moment.to(device_, at::kFloat, false, true),
                             host.second_moment.to(device_, at::kFloat, false, true)};
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
    Report("AdamW", at::kFloat,
           [&] {
             UpdateByKernel(there, scalars, &kernels_);
             return Tensors{there.values, there.first_moment, there.second_moment};
           },
           {host.values, host.first_moment, host.second_moment}, 0.0,
           {.bytes = 28.0 * static_cast<double>(size)});
  }

  // Equal to the bit; these kernels have no emulation.
  void DropoutAndNf4(at::ScalarType dtype) {
    const at::Tensor x = RandomOperand({Rows(), 4096}, 1, dtype), key = at::arange(Rows(), at::kLong);
    const Dropout on_host{key, 3}, on_gpu{key, 3, key.to(device_)};
    const at::Tensor x_there = x.to(device_);
    Report("dropout", dtype, [&] { return Tensors{Dropped(on_gpu, 0.1, x_there)}; },
           {Dropped(on_host, 0.1, x)}, 0.0, {.bytes = 2.0 * static_cast<double>(x.nbytes())});
    const Nf4Weight packed = QuantizeToNf4(RandomOperand({4096, 4096}, 2, at::kFloat), true),
                    there = packed.To(device_);
    Report("NF4", dtype, [&] { return Tensors{there.Dequantized(dtype)}; }, {packed.Dequantized(dtype)}, 0.0,
           {.bytes = 4096.0 * 4096.0 * (0.52 + static_cast<double>(elementSize(dtype)))});
  }

  at::Device device_;
  bool tiny_;
  CudaKernels kernels_;
  double peak_flops_ = 0, peak_bytes_ = 0;
  bool failed_ = false;
};

int Main(const std::vector<std::string>& arguments) {
  const auto given = [&](const char* word) {
    return std::find(arguments.begin(), arguments.end(), word) != arguments.end();
  };
  const bool cuda = !given("cpu");
  if (cuda) {
    std::string problem = dist::NcclProblem();
    if (problem.empty() && FindCudaKernels().tree_attention == nullptr)
      problem = "this build has no kernels: no nvcc";
    if (problem.empty() && !at::hasCUDA()) problem = "this machine shows no CUDA device";
    if (!problem.empty()) {
      std::cerr << "kernel_check: error: " << problem << "; --device cpu emulates the kernels\n";
      return static_cast<int>(ExitCode::kWrongResources);
    }
  }
  return KernelCheck(cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU), given("--tiny")).Run();
}

}  // namespace
}  // namespace plural::trainer

int main(int argc, char** argv) {
  try {
    return plural::trainer::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "kernel_check: error: " << error.what() << "\n";
    return static_cast<int>(plural::ExitCode::kInternal);
  }
}
