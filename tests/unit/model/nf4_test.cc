// NF4 weights: the format by hand, pieces, threads. That the bits are those of bitsandbytes is
// tests/parity's.
#include "trainer/ops/nf4.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/unit/support/tiny_decoder.h"
#include "trainer/kernels/nf4_loops.h"
#include "trainer/model/linear.h"

namespace plural::trainer {
namespace {

at::Tensor Random(std::int64_t rows, std::int64_t columns, double spread = 1.0) {
  const at::Tensor tensor = at::empty({rows, columns}, at::kFloat);
  testing::FillUniform(tensor, -spread, spread, "nf4");
  return tensor;
}

TEST(Nf4, FirstValueIsInTheHighBitsAndScaledByTheBlock) {
  const at::Tensor weight = at::zeros({2, 64}, at::kFloat);
  weight[0][0] = -2.0;  // value 0 of 16, times absmax 2
  weight[0][1] = 2.0;   // 15
  weight[0][2] = 0.9;   // 0.45 is next to 0.4407, which is 12
  weight[0][3] = -0.3;  // -0.15 is next to -0.1848, which is 5
  weight[1][63] = 0.5;
  const Nf4Weight packed = QuantizeToNf4(weight, /*double_quantization=*/false);
  const auto* bytes = packed.packed_P.const_data_ptr<std::uint8_t>();
  EXPECT_EQ(packed.packed_P.numel(), 64);
  EXPECT_EQ(bytes[0], 0x0F);
  EXPECT_EQ(bytes[1], 0xC5);
  EXPECT_EQ(bytes[2], 0x77);  // 7 is zero
  EXPECT_EQ(bytes[63], 0x7F);
  const at::Tensor values = packed.Dequantized(at::kFloat);
  EXPECT_EQ(values[0][0].item<float>(), -2.0F);
  EXPECT_EQ(values[0][2].item<float>(), 2.0F * 0.44070982933044434F);
  EXPECT_EQ(values[1][63].item<float>(), 0.5F);  // of the second block
  EXPECT_EQ(values[1][0].item<float>(), 0.0F);
}

TEST(Nf4, EveryValueIsTheNearest) {
  const at::Tensor weight = Random(32, 96);
  const at::Tensor values = QuantizeToNf4(weight, false).Dequantized(at::kFloat);
  const auto* from = weight.const_data_ptr<float>();
  const auto* to = values.const_data_ptr<float>();
  for (std::int64_t begin = 0; begin < weight.numel(); begin += 64) {
    float absmax = 0.0F;
    for (std::int64_t i = begin; i < begin + 64; ++i) absmax = std::max(absmax, std::fabs(from[i]));
    for (std::int64_t i = begin; i < begin + 64; ++i) {
      float nearest = INFINITY;
      for (const float value : host::kNf4Values)
        nearest = std::min(nearest, std::fabs(value * absmax - from[i]));
      // Scaled by the reciprocal, rounded twice: by so much another value may be as near.
      EXPECT_LE(std::fabs(to[i] - from[i]), nearest + absmax * 0x1p-22F);
    }
  }
}

TEST(Nf4, DoubleQuantizationIsWithinAStepOfItsMap) {
  const at::Tensor weight = Random(600, 320);  // 3000 blocks, in 12 blocks of 256
  const Nf4Weight plain = QuantizeToNf4(weight, false), twice = QuantizeToNf4(weight);
  EXPECT_TRUE(at::equal(plain.packed_P, twice.packed_P));
  EXPECT_EQ(twice.absmax_B.scalar_type(), at::kByte);
  const at::Tensor error = (twice.Absmax() - plain.Absmax()).abs();
  const at::Tensor nested = twice.nested_absmax_N.repeat_interleave(256).narrow(0, 0, 3000);
  // Half the widest gap of the map, (1 - 0.1) / 64, and a step of bitsandbytes' table.
  EXPECT_TRUE((error <= nested * (0.45 / 64 + 2.0 / 65535)).all().item<bool>());
  EXPECT_GT(error.max().item<float>(), 0.0F);
  EXPECT_EQ(twice.Bytes(), Nf4Bytes(600 * 320));
  const double bits = 8.0 * static_cast<double>(twice.Bytes()) / (600 * 320);
  EXPECT_NEAR(bits, 4.0 + 8.0 / 64 + 32.0 / (64 * 256), 0.05);  // the map is 1024 bytes
}

TEST(Nf4, PiecesAreCutAnywhere) {
  for (const std::int64_t columns : {64, 80, 33}) {
    const Nf4Weight weight = QuantizeToNf4(Random(7, columns));
    const at::Tensor whole = weight.Dequantized(at::kFloat);
    for (std::int64_t begin = 0; begin < 7; ++begin) {
      for (std::int64_t end = begin + 1; end <= 7; ++end) {
        const at::Tensor rows = at::full({end - begin, columns}, 9.0, at::kFloat);
        weight.DequantizeRows(begin, end, rows.mutable_data_ptr<float>());
        EXPECT_TRUE(at::equal(rows, whole.narrow(0, begin, end - begin))) << columns << " " << begin;
      }
    }
    EXPECT_TRUE(at::equal(weight.Dequantized(at::kBFloat16), whole.to(at::kBFloat16)));
    EXPECT_TRUE(at::equal(weight.Dequantized(at::kDouble), whole.to(at::kDouble)));
  }
}

TEST(Nf4, OtherDevicesComputeTheSame) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{300, 96}, {7, 9}, {2, 64}}) {
    for (const bool twice : {false, true}) {
      const Nf4Weight weight = QuantizeToNf4(Random(rows, columns), twice);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
        const at::Tensor out = at::full({rows, columns}, 9.0, dtype);
        DequantizeWithAten(weight, out);
        EXPECT_TRUE(at::equal(out, weight.Dequantized(dtype))) << rows << " " << twice << " " << dtype;
      }
    }
  }
}

TEST(Nf4, ThreadsChangeNoBit) {
  const int threads = at::get_num_threads();
  int sensitive = 0;  // tensors whose mean absmax depends on threads when ATen sums it
  for (int draw = 0; draw < 8; ++draw) {
    // 40960 blocks: enough for ATen to split their sum.
    const at::Tensor weight = Random(40960, 64) * Random(40960, 1, 1.0 + draw);
    at::set_num_threads(1);
    const Nf4Weight one = QuantizeToNf4(weight);
    const at::Tensor absmax = QuantizeToNf4(weight, false).absmax_B;
    const float mean = absmax.mean().item<float>();
    at::set_num_threads(3);
    const Nf4Weight three = QuantizeToNf4(weight);
    if (absmax.mean().item<float>() != mean) ++sensitive;
    EXPECT_TRUE(at::equal(one.Dequantized(at::kFloat), three.Dequantized(at::kFloat)));
    EXPECT_EQ(one.offset, three.offset);
    EXPECT_TRUE(at::equal(one.packed_P, three.packed_P));
    EXPECT_TRUE(at::equal(one.absmax_B, three.absmax_B));
  }
  at::set_num_threads(threads);
  EXPECT_GT(sensitive, 0);
}

TEST(Nf4, ScratchMemoryIsReusedAndGrows) {
  Nf4Scratch scratch;
  const auto options = at::TensorOptions().dtype(at::kFloat);
  const auto place = [&scratch](std::int64_t rows, std::int64_t columns, const at::TensorOptions& of) {
    return scratch.Take(rows, columns, of).Tensor().data_ptr();
  };
  const void* small = place(4, 8, options);
  EXPECT_EQ(place(2, 3, options), small);
  EXPECT_EQ(place(8, 8, options.dtype(at::kBFloat16)), small);
  const HeldWeight large = scratch.Take(300, 7, options);
  EXPECT_EQ(large.Tensor().sizes(), at::IntArrayRef({300, 7}));
}

// A layer with an adapter; its weight in NF4, or as NF4 makes it.
Linear Layer(std::int64_t outputs, std::int64_t inputs, at::ScalarType dtype,
             const std::shared_ptr<Nf4Scratch>& scratch) {
  auto nf4 = std::make_shared<Nf4Weight>(QuantizeToNf4(Random(outputs, inputs)));
  nf4->scratch = scratch;
  Linear linear;
  linear.weight_OI = nf4->Dequantized(dtype);
  if (scratch) {
    linear.weight_OI = at::empty_like(linear.weight_OI, at::TensorOptions().device(at::kMeta));
    linear.nf4 = std::move(nf4);
  }
  linear.lora = {.a_KI = Random(3, inputs, 0.1), .b_OK = Random(outputs, 3, 0.2), .scale = 2.0};
  linear.lora.a_KI.set_requires_grad(true);
  linear.lora.b_OK.set_requires_grad(true);
  return linear;
}

TEST(Nf4, AWeightInUseIsNotOverwritten) {
  const auto scratch = std::make_shared<Nf4Scratch>();
  const Linear first = Layer(8, 64, at::kFloat, scratch), second = Layer(8, 64, at::kFloat, scratch);
  const Linear other = Layer(8, 64, at::kFloat, std::make_shared<Nf4Scratch>());
  {
    HeldWeight held = first.Weight(at::kFloat);
    EXPECT_THROW(second.Weight(at::kFloat), std::logic_error);
    EXPECT_THROW(first.Weight(at::kBFloat16), std::logic_error);
    const HeldWeight moved = std::move(held);
    EXPECT_THROW(second.Weight(at::kFloat), std::logic_error);
    EXPECT_TRUE(at::equal(moved.Tensor(), first.nf4->Dequantized(at::kFloat)));
    EXPECT_TRUE(at::equal(other.Weight(at::kFloat).Tensor(), other.nf4->Dequantized(at::kFloat)));
  }
  EXPECT_TRUE(at::equal(second.Weight(at::kFloat).Tensor(), second.nf4->Dequantized(at::kFloat)));
  EXPECT_THROW(static_cast<void>(first.Weight(at::kInt)), std::exception);  // what fails holds nothing
  EXPECT_TRUE(at::equal(first.Weight(at::kFloat).Tensor(), first.nf4->Dequantized(at::kFloat)));
}

// Two layers share the scratch memory: what forward left there is gone when backward comes.
std::vector<at::Tensor> OutputAndGradients(at::ScalarType dtype, const std::shared_ptr<Nf4Scratch>& scratch) {
  const Linear first = Layer(96, 80, dtype, scratch), second = Layer(70, 96, dtype, scratch);
  const at::Tensor x_RI = Random(33, 80).to(dtype).set_requires_grad(true);
  const at::Tensor y_RO = second.Forward(first.Forward(x_RI));
  const auto gradients = torch::autograd::grad(
      {y_RO}, {x_RI, first.lora.a_KI, first.lora.b_OK, second.lora.a_KI, second.lora.b_OK},
      {Random(33, 70, 0.5).to(dtype)});
  std::vector<at::Tensor> result = {y_RO};
  result.insert(result.end(), gradients.begin(), gradients.end());
  return result;
}

TEST(Nf4, LayersComputeWithTheDequantizedWeight) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto nf4 = OutputAndGradients(dtype, std::make_shared<Nf4Scratch>()),
               plain = OutputAndGradients(dtype, nullptr);
    for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(nf4[i], plain[i])) << dtype << i;
  }
}

TEST(Nf4, AnswersComputeWithTheDequantizedWeight) {
  const at::NoGradGuard no_grad;
  // Of the second, several blocks of rows are dequantised one after the other.
  for (const auto& [outputs, inputs] : {std::pair<std::int64_t, std::int64_t>{70, 33}, {203, 1090}}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const Linear plain = Layer(outputs, inputs, dtype, nullptr),
                   nf4 = Layer(outputs, inputs, dtype, std::make_shared<Nf4Scratch>());
      for (const std::int64_t rows : {1, 9}) {
        const at::Tensor x_RI = Random(rows, inputs).to(dtype);
        EXPECT_TRUE(at::equal(nf4.Forward(x_RI), plain.Forward(x_RI))) << outputs << " " << rows << dtype;
      }
    }
  }
}

}  // namespace
}  // namespace plural::trainer
