// Flat parameters and gradient sync. Gradients are integers, exact in fp32 and fp64 in any order.
#include "dist/gradient_sync.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <stdexcept>

#include "tests/mpi/forwarding.h"
#include "tests/mpi/mpi_world.h"

namespace plural {
namespace {

using dist::FlatParameters;
using dist::GradientSync;
using dist::MakeMpiCollectives;
using dist::NamedTensor;
using testing::World;

// Records what is sent, in order.
class Recorder : public testing::Forwarding {
 public:
  struct Sent {
    std::int64_t offset, size;  // elements of the flat gradient
  };

  using testing::Forwarding::AllReduceSum;
  std::unique_ptr<dist::Pending> AllReduceSum(const at::Tensor& tensor) override {
    sent.push_back({tensor.storage_offset(), tensor.numel()});
    return testing::Forwarding::AllReduceSum(tensor);
  }

  std::vector<Sent> sent;
};

constexpr std::int64_t kShapes[][2] = {{3, 5}, {16, 1}, {1, 1}, {7, 40}, {2, 2}, {33, 1}};
constexpr int kCount = std::size(kShapes);

std::vector<NamedTensor> MakeTensors(at::ScalarType type) {
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < kCount; ++i) {
    at::Tensor tensor = at::full({kShapes[i][0], kShapes[i][1]}, i + 1, type);
    tensors.push_back({"p" + std::to_string(i), tensor.set_requires_grad(true)});
  }
  return tensors;
}

// The gradient of parameter i in a pass: 1, 2, 3, ... times (i + 1) times `factor`.
at::Tensor PassGradient(int i, int factor, at::ScalarType type) {
  const std::int64_t size = kShapes[i][0] * kShapes[i][1];
  return (at::arange(1, size + 1, at::kLong) * ((i + 1) * factor))
      .to(type)
      .view({kShapes[i][0], kShapes[i][1]});
}

// One pass: a chain through all parameters but `skip`, so that backward finishes the last one first.
void Backward(const std::vector<NamedTensor>& tensors, int factor, int skip = -1) {
  const at::ScalarType type = tensors.front().tensor.scalar_type();
  at::Tensor loss = at::zeros({}, type);
  for (int i = 0; i < kCount; ++i) {
    if (i == skip) continue;
    loss = loss + (tensors[static_cast<std::size_t>(i)].tensor * PassGradient(i, factor, type)).sum();
  }
  torch::autograd::backward({loss}, {});
}

void ExpectGradients(const FlatParameters& parameters, int factor_sum, int skipped = -1) {
  const at::ScalarType type = parameters.Gradients().scalar_type();
  for (int i = 0; i < kCount; ++i) {
    const at::Tensor gradient = parameters.Tensors()[static_cast<std::size_t>(i)].tensor.grad();
    const at::Tensor expected = PassGradient(i, i == skipped ? 0 : factor_sum, type);
    EXPECT_TRUE(at::equal(gradient, expected)) << "parameter " << i;
  }
  parameters.CheckAliasing();
}

TEST(FlatParameters, AliasesValuesAndGradients) {
  const auto tensors = MakeTensors(at::kDouble);
  FlatParameters parameters(tensors);
  std::int64_t end = 0;
  for (int i = 0; i < kCount; ++i) {
    const auto& span = parameters.Spans()[static_cast<std::size_t>(i)];
    EXPECT_EQ(span.offset % FlatParameters::kAlignment, 0);
    EXPECT_GE(span.offset, end);
    end = span.offset + span.size;
    EXPECT_EQ(span.size, kShapes[i][0] * kShapes[i][1]);
    // The module's own tensor, not a copy, sees the buffer.
    const at::Tensor values = parameters.Values().narrow(0, span.offset, span.size);
    EXPECT_TRUE(at::equal(values, at::full_like(values, i + 1)));
    values.fill_(10 * i);
    EXPECT_EQ(tensors[static_cast<std::size_t>(i)].tensor.sum().item<double>(),
              10.0 * i * static_cast<double>(span.size));
  }
  Backward(tensors, 1);
  Backward(tensors, 2);  // accumulates in place
  ExpectGradients(parameters, 3);
  parameters.ZeroGradients();
  ExpectGradients(parameters, 0);
  EXPECT_EQ(parameters.Gradients().numel() % FlatParameters::kAlignment, 0);
}

TEST(FlatParameters, KeepsPaddingZero) {
  const auto tensors = MakeTensors(at::kFloat);
  FlatParameters parameters(tensors);
  Backward(tensors, 1);
  double inside = 0.0;
  for (const auto& [name, tensor] : tensors) inside += tensor.grad().sum().item<double>();
  EXPECT_EQ(parameters.Gradients().sum(at::kDouble).item<double>(), inside);
}

TEST(FlatParameters, FindsBrokenAliasing) {
  for (const bool break_values : {true, false}) {
    auto tensors = MakeTensors(at::kFloat);
    FlatParameters parameters(tensors);
    parameters.CheckAliasing();
    if (break_values) {
      tensors[2].tensor.set_data(tensors[2].tensor.detach().clone());
    } else {
      tensors[2].tensor.mutable_grad().reset();
    }
    try {
      parameters.CheckAliasing();
      ADD_FAILURE() << "not found";
    } catch (const std::logic_error& error) {
      EXPECT_NE(std::string(error.what()).find("'p2'"), std::string::npos) << error.what();
    }
  }
}

TEST(FlatParameters, RefusesWhatItCannotHold) {
  EXPECT_THROW(FlatParameters({}), std::invalid_argument);
  const at::Tensor leaf = at::ones({4}).set_requires_grad(true);
  EXPECT_THROW(FlatParameters({{"a", at::ones({4})}}), std::invalid_argument);
  EXPECT_THROW(FlatParameters({{"a", leaf * 2}}), std::invalid_argument);
  EXPECT_THROW(FlatParameters({{"a", leaf}, {"tied", leaf}}), std::invalid_argument);
  EXPECT_THROW(FlatParameters({{"a", leaf}, {"b", at::ones({4}, at::kDouble).set_requires_grad(true)}}),
               std::invalid_argument);
  EXPECT_THROW(FlatParameters({{"a", at::ones({4}, at::kBFloat16).set_requires_grad(true)}}),
               std::invalid_argument);
}

// Rank r runs r passes (rank 0 none), pass k with factor 100 r + k.
TEST(GradientSync, SumsOverRanksAndPasses) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const std::int64_t bucket_bytes : {1, 200, 1500, 25 << 20}) {
      const auto tensors = MakeTensors(type);
      FlatParameters parameters(tensors);
      const auto collectives = MakeMpiCollectives(World());
      GradientSync sync(parameters, *collectives, bucket_bytes);
      for (int step = 0; step < 3; ++step) {
        parameters.ZeroGradients();
        int expected = 0;
        for (int rank = 0; rank < World().Size(); ++rank) {
          for (int pass = 0; pass < rank; ++pass) {
            expected += 100 * rank + pass + step;
            if (rank != World().Rank()) continue;
            if (pass == rank - 1) sync.ArmLastBackward();
            Backward(tensors, 100 * rank + pass + step);
          }
        }
        sync.Finish();
        ExpectGradients(parameters, expected);
      }
    }
  }
}

TEST(GradientSync, SendsInOrderBehindTheLastBackward) {
  const auto tensors = MakeTensors(at::kFloat);
  FlatParameters parameters(tensors);
  Recorder recorder;
  GradientSync sync(parameters, recorder, /*bucket_bytes=*/1);  // one parameter a bucket
  Backward(tensors, 1);
  EXPECT_TRUE(recorder.sent.empty()) << "sent before the last pass";
  sync.ArmLastBackward();
  Backward(tensors, 1);
  EXPECT_EQ(recorder.sent.size(), static_cast<std::size_t>(kCount)) << "not overlapped with backward";
  sync.Finish();
  std::int64_t begin = parameters.Gradients().numel();
  for (const auto& sent : recorder.sent) {
    EXPECT_EQ(sent.offset + sent.size, begin);
    begin = sent.offset;
  }
  EXPECT_EQ(begin, 0);
  ExpectGradients(parameters, 2 * World().Size());

  recorder.sent.clear();
  Backward(tensors, 1);
  EXPECT_TRUE(recorder.sent.empty()) << "armed beyond Finish";
  sync.Finish();
}

// Each rank misses another parameter in its last pass; buckets must still pair up.
TEST(GradientSync, WaitsInOrderForParametersWithoutGradient) {
  const auto tensors = MakeTensors(at::kDouble);
  FlatParameters parameters(tensors);
  Recorder recorder;
  GradientSync sync(parameters, recorder, /*bucket_bytes=*/1);
  const int skip = World().Rank() % kCount;
  sync.ArmLastBackward();
  Backward(tensors, 1, skip);
  // Buckets go from the last parameter down: all above the missing one are out, none below.
  EXPECT_EQ(recorder.sent.size(), static_cast<std::size_t>(kCount - 1 - skip));
  sync.Finish();
  EXPECT_EQ(recorder.sent.size(), static_cast<std::size_t>(kCount));
  for (int i = 0; i < kCount; ++i) {
    const int contributors = World().Size() - (i < World().Size() ? 1 : 0);
    EXPECT_TRUE(at::equal(tensors[static_cast<std::size_t>(i)].tensor.grad(),
                          PassGradient(i, contributors, at::kDouble)))
        << i;
  }
}

TEST(GradientSync, BeginsAnewUntilABucketIsSent) {
  const auto tensors = MakeTensors(at::kFloat);
  FlatParameters parameters(tensors);
  Recorder recorder;
  GradientSync sync(parameters, recorder);  // one bucket
  sync.ArmLastBackward();
  Backward(tensors, 1, /*skip=*/0);  // as one that fails before its last gradient
  EXPECT_TRUE(recorder.sent.empty());
  EXPECT_TRUE(sync.Disarm());
  parameters.ZeroGradients();
  Backward(tensors, 1);
  EXPECT_TRUE(recorder.sent.empty()) << "armed beyond Disarm";
  parameters.ZeroGradients();
  sync.ArmLastBackward();
  Backward(tensors, 1);
  EXPECT_EQ(recorder.sent.size(), 1U);
  EXPECT_FALSE(sync.Disarm());
  sync.Finish();
  ExpectGradients(parameters, World().Size());
}

// A parameter that fires twice in one backward after its bucket left would be summed wrongly.
TEST(GradientSync, RefusesASecondGradientAfterSending) {
  const auto tensors = MakeTensors(at::kFloat);
  FlatParameters parameters(tensors);
  const auto collectives = MakeMpiCollectives(World());
  GradientSync sync(parameters, *collectives, 1);
  sync.ArmLastBackward();
  EXPECT_THROW(sync.ArmLastBackward(), std::logic_error);
  Backward(tensors, 1);
  EXPECT_THROW(Backward(tensors, 1), std::logic_error);
  sync.Finish();
}

TEST(GradientSync, OwnsItsHooks) {
  const auto tensors = MakeTensors(at::kFloat);
  FlatParameters parameters(tensors);
  const auto collectives = MakeMpiCollectives(World());
  EXPECT_THROW(GradientSync(parameters, *collectives, 0), std::invalid_argument);
  {
    GradientSync sync(parameters, *collectives);
    EXPECT_THROW(GradientSync(parameters, *collectives), std::logic_error);
    sync.ArmLastBackward();
  }
  Backward(tensors, 1);  // hooks are gone with their owner
  GradientSync again(parameters, *collectives);
  again.Finish();
  ExpectGradients(parameters, World().Size());
}

}  // namespace
}  // namespace plural
