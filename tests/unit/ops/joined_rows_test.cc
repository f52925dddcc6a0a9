// Rotation and gate of joined rows: what the parts alone give, by operators, and by the kernels' own source,
// run by an emulation of blocks of GPU threads.

#include "trainer/ops/joined_rows.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/pointwise_cuda.h"

namespace plural::trainer {
namespace {

at::Tensor JoinedLeaf(std::int64_t rows, std::int64_t width, at::ScalarType dtype) {
  return testing::RandomTensor({rows, width}, 1).mul_(3.0).to(dtype).set_requires_grad(true);
}

// The kernels turn a head by one formula, wherever it lies: the same bits.
TEST(JoinedRows, HeadsAreRotatedAsByThemselves) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const std::int64_t rows = 5;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const auto& [queries, keys, dim] : {std::tuple{4, 2, 16}, {3, 3, 128}, {33, 1, 64}}) {
      const at::Tensor joined = JoinedLeaf(rows, (queries + 2 * keys) * dim, dtype);
      const RotaryTable table = MakeRotaryTable(at::arange(rows, at::kInt), dim, Rope{}, dtype);
      const std::vector<at::Tensor> parts =
          joined.detach().split_with_sizes({queries * dim, keys * dim, keys * dim}, 1);
      for (const CudaKernels* given : {static_cast<const CudaKernels*>(nullptr), &kernels}) {
        const auto rotated = [&](const at::Tensor& x, bool back) {
          if (given != nullptr && dtype != at::kDouble) {
            return RotatedOnCuda(x.contiguous(), table.cos_ND2, table.sin_ND2, back, given);
          }
          return Rotate(x, back ? RotaryTable{table.cos_ND2, table.sin_ND2.neg()} : table);
        };
        const std::vector<at::Tensor> found = RotateJoined(joined, table, queries, keys, given);
        EXPECT_TRUE(found[0].equal(rotated(parts[0], false))) << dtype << " " << dim;
        EXPECT_TRUE(found[1].equal(rotated(parts[1], false))) << dtype << " " << dim;
        EXPECT_TRUE(found[2].equal(parts[2]));
        for (const at::Tensor& part : found) EXPECT_TRUE(part.is_contiguous());

        std::vector<at::Tensor> dy;
        for (std::size_t i = 0; i < 3; ++i)
          dy.push_back(testing::RandomTensor(found[i].sizes().vec(), 5 + i).to(dtype));
        const at::Tensor dx = torch::autograd::grad({found[0], found[1], found[2]}, {joined}, dy)[0];
        EXPECT_TRUE(dx.equal(at::cat({rotated(dy[0], true), rotated(dy[1], true), dy[2]}, 1)))
            << dtype << " " << dim;
      }
    }
  }
}

TEST(JoinedRows, GateAndUpAreThoseOfEachAlone) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t width : {8, 2056}) {
      for (const bool silu : {true, false}) {
        const Activation activation = silu ? Activation::kSilu : Activation::kGeluTanh;
        const at::Tensor joined = JoinedLeaf(5, 2 * width, dtype);
        const at::Tensor dout = testing::RandomTensor({5, width}, 3).to(dtype);
        const at::Tensor gate = joined.detach().narrow(1, 0, width).contiguous(),
                         up = joined.detach().narrow(1, width, width).contiguous();
        const at::Tensor found = GateJoined(activation, joined, &kernels);
        EXPECT_TRUE(found.equal(GatedOnCuda(gate, up, silu, &kernels))) << dtype << " " << width;
        const auto wanted = GatedBackwardOnCuda(gate, up, dout, silu, &kernels);
        EXPECT_TRUE(torch::autograd::grad({found}, {joined}, {dout})[0].equal(
            at::cat({wanted->dgate_NF, wanted->dup_NF}, 1)))
            << dtype << " " << width;
        EXPECT_TRUE(GateJoined(activation, joined).equal(GatedActivation(activation, gate, up)));
      }
    }
  }
}

}  // namespace
}  // namespace plural::trainer
