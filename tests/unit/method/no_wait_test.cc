// A step must not wait for a GPU before it has sent it everything. On the meta device tensors have shapes and
// no values: whatever asks for a value, as a host that waits for a GPU does, throws.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "tests/unit/support/every_part.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

at::Tensor IndexSelect(const at::Tensor& x, std::int64_t dim, const at::Tensor& index) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.at(static_cast<std::size_t>(dim)) = index.numel();
  return at::empty(shape, x.options());
}

at::Tensor& IndexPut(at::Tensor& x, const c10::List<std::optional<at::Tensor>>&, const at::Tensor&, bool,
                     bool) {
  return x;
}

at::Tensor& LikeItsInput(const at::Tensor& x, at::Tensor& out) {
  out.resize_(x.sizes());
  return out;
}

at::Tensor Where(const at::Tensor& condition, const at::Tensor& x, const at::Tensor&) {
  return at::empty(condition.sizes(), x.options());
}

std::tuple<at::Tensor, at::Tensor> LogSigmoid(const at::Tensor& x) {
  return {at::empty(x.sizes(), x.options()), at::empty({0}, x.options())};
}

TEST(Step, AsksTheDeviceForNoValue) {
  // Operators whose results' shapes depend on no value, and that lack a kernel for this device.
  torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__);
  library.impl("index_select", &IndexSelect);
  library.impl("_index_put_impl_", &IndexPut);
  library.impl("abs.out", &LikeItsInput);
  library.impl("where.self", &Where);
  library.impl("log_sigmoid_forward", &LogSigmoid);

  ModelConfig config = SmallConfig();
  AddEveryPart(config);  // also for attention in plain operators: no kernel knows this device
  Decoder model(config, at::kFloat, at::kMeta);
  model.AddAdapter({.rank = 3, .alpha = 5.0, .dropout = 0.2, .targets = {"q_proj", "o_proj", "lm_head"}}, 2);
  data::RowPass pass = RandomTreePass(40, 3);
  for (std::int32_t row = 0; row < 40; ++row) {
    pass.edges.push_back({row, row % 29, 0.5, 0.5});
    pass.path_key.push_back(static_cast<std::uint64_t>(row));
  }
  for (const bool recompute : {false, true}) {
    const PassResult result =
        RunPass(model, pass, {.dropout_key = 1, .recompute = recompute}, {.chunk_rows = 7});
    result.loss.backward();
    EXPECT_TRUE(result.loss.is_meta());
    for (const auto& [name, tensor] : model.TrainableParameters())
      EXPECT_TRUE(tensor.grad().defined()) << name;
    EXPECT_ANY_THROW(ReadFigures(pass, result.values));
  }
}

}  // namespace
}  // namespace plural::trainer
