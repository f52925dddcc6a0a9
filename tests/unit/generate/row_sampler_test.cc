// The kernel that draws tokens, by its own source in an emulation of blocks of GPU threads, against the
// host's sampler: equal logits give equal tokens.

#include "trainer/generate/row_sampler.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "data/random.h"
#include "tests/unit/support/emulated_kernels.h"
#include "trainer/kernels/cuda/host_exponential.h"
#include "trainer/kernels/logit_loops.h"
#include "trainer/ops/sample_rows_cuda.h"

namespace plural::trainer {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

enum class Shape : std::uint8_t {
  kSpread,   // a language model's: some large, many small
  kTies,     // few different values
  kFlat,     // all nearly the same
  kPeaked,   // one token has nearly everything
  kEqual,    // all the same
  kSomeOnly  // most are impossible
};

at::Tensor RowOfLogits(std::int64_t count, Shape shape, std::uint64_t key) {
  data::CounterRandom random{data::Mix64(key)};
  const at::Tensor logits = at::empty({1, count}, at::kFloat);
  auto* z = logits.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    const double draw = random.Uniform();
    switch (shape) {
      case Shape::kSpread:
        z[i] = static_cast<float>(-4.0 * std::log(draw + 1e-12) - 10.0);
        break;
      case Shape::kTies:
        z[i] = static_cast<float>(std::floor(draw * 40.0) / 4.0);
        break;
      case Shape::kFlat:
        z[i] = static_cast<float>(1e-3 * draw);
        break;
      case Shape::kPeaked:
        z[i] = i == count / 3 ? 30.0F : static_cast<float>(draw);
        break;
      case Shape::kEqual:
        z[i] = -2.5F;
        break;
      case Shape::kSomeOnly:
        z[i] = draw < 0.9 && i != count / 2 ? kImpossible : static_cast<float>(8.0 * draw);
        break;
    }
  }
  return logits;
}

struct BothWays {
  std::vector<DrawnRow> host, device;
};

BothWays DrawBothWays(const at::Tensor& logits_RV, const std::vector<RowToDraw>& rows) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const std::vector<data::Token> ends = {2, 0};
  BothWays both;
  for (const bool with : {false, true}) {
    RowSampler sampler(ends, with ? &kernels : nullptr);
    PackedUpload upload;
    upload.Add(std::vector<std::int64_t>{7});  // something before
    sampler.Prepare(rows, upload);
    upload.Send(at::kCPU);
    (with ? both.device : both.host) = sampler.Draw(rows, logits_RV, upload);
  }
  return both;
}

void ExpectSameTokens(const at::Tensor& logits_RV, const std::vector<RowToDraw>& rows, const char* what) {
  const BothWays both = DrawBothWays(logits_RV, rows);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    ASSERT_EQ(both.device[r].tokens, both.host[r].tokens)
        << what << ": temperature " << rows[r].sampling.temperature << ", top_k " << rows[r].sampling.top_k
        << ", top_p " << rows[r].sampling.top_p << ", may end " << rows[r].may_end << ", of "
        << logits_RV.size(1);
    ASSERT_NEAR(both.device[r].log_sum, both.host[r].log_sum, 1e-12 * std::abs(both.host[r].log_sum));
    for (std::size_t i = 0; i < rows[r].uniforms.size(); ++i)
      ASSERT_NEAR(both.device[r].logprobs[i], both.host[r].logprobs[i], 1e-12 * 64.0);
  }
}

std::vector<double> Uniforms(std::size_t count, std::uint64_t key) {
  data::CounterRandom random{key};
  std::vector<double> uniforms;
  for (std::size_t i = 0; i < count; ++i) uniforms.push_back(random.Uniform());
  // The ends of the range.
  uniforms[0] = 0.0;
  uniforms.back() = 1.0 - std::numeric_limits<double>::epsilon() / 2;
  return uniforms;
}

const std::vector<SamplingSettings>& AskedSettings() {
  static const std::vector<SamplingSettings> settings = {
      {},
      {.temperature = 0.7},
      {.temperature = 1.9},
      {.temperature = 0.0},
      {.temperature = 0.0, .top_k = 5, .top_p = 0.5},
      {.top_k = 1},
      {.temperature = 0.8, .top_k = 50},
      {.top_k = 700},
      {.top_p = 0.9},
      {.temperature = 1.3, .top_p = 0.5},
      {.top_p = 1e-9},
      {.top_p = 0.999999},
      {.temperature = 0.6, .top_k = 40, .top_p = 0.8},
  };
  return settings;
}

// One row for each of the settings.
std::vector<RowToDraw> RowsOf(const std::vector<SamplingSettings>& settings, bool may_end, std::size_t draws,
                              std::uint64_t key) {
  std::vector<RowToDraw> rows;
  for (const SamplingSettings& sampling : settings)
    rows.push_back({sampling, may_end, Uniforms(draws, data::Mix64(key + rows.size()))});
  return rows;
}

TEST(SamplingKernel, DrawsTheTokensOfTheHostsSampler) {
  std::uint64_t key = 1;
  for (const Shape shape :
       {Shape::kSpread, Shape::kTies, Shape::kFlat, Shape::kPeaked, Shape::kEqual, Shape::kSomeOnly}) {
    for (const std::int64_t count : {3, 16, 255, 257, 1000, 1025, 5000}) {
      const at::Tensor logits = RowOfLogits(count, shape, ++key);
      const auto rows = RowsOf(AskedSettings(), key % 3 != 0, 20, key);
      ExpectSameTokens(logits.repeat({static_cast<std::int64_t>(rows.size()), 1}), rows, "row");
    }
  }
}

// Of a real vocabulary's size, past the tokens that a round of the kernel's threads takes.
TEST(SamplingKernel, DrawsFromLargeVocabularies) {
  const std::vector<SamplingSettings> settings = {
      {}, {.temperature = 0.0}, {.temperature = 0.9, .top_k = 50}, {.top_p = 0.6}};
  for (const Shape shape : {Shape::kSpread, Shape::kTies}) {
    const auto rows = RowsOf(settings, true, 40, 11);
    const at::Tensor logits = RowOfLogits(70000, shape, 12);
    ExpectSameTokens(logits.repeat({static_cast<std::int64_t>(rows.size()), 1}), rows, "large");
  }
}

// Where the kept mass is what is asked for to the last bit: probabilities that are powers of 2.
TEST(SamplingKernel, CutsWhereTheHostCuts) {
  const at::Tensor logits = at::empty({1, 8}, at::kFloat);
  for (int i = 0; i < 8; ++i)
    logits.mutable_data_ptr<float>()[i] = static_cast<float>(std::log(std::ldexp(1.0, -(i * 5 % 8))));
  std::vector<SamplingSettings> settings;
  for (const double edge : {0.5, 0.75, 0.875, 0.9375, 1.0 - 1.0 / 64}) {
    for (const double at : {std::nextafter(edge, 0.0), edge, std::nextafter(edge, 1.0)}) {
      settings.push_back({.top_p = at});
      settings.push_back({.top_k = 5, .top_p = at});
    }
  }
  const auto rows = RowsOf(settings, true, 30, 3);
  ExpectSameTokens(logits.repeat({static_cast<std::int64_t>(rows.size()), 1}), rows, "edge");
}

// Many draws from one row, as the responses of a prompt have at first.
TEST(SamplingKernel, DrawsManyTimesFromARow) {
  const at::Tensor logits = RowOfLogits(3000, Shape::kSpread, 5);
  for (const SamplingSettings& sampling : {SamplingSettings{}, SamplingSettings{.top_k = 30}}) {
    ExpectSameTokens(logits, {{sampling, true, Uniforms(700, 4)}}, "many");
  }
}

// Which of the rows, one for each of the settings, the kernel serves.
std::vector<bool> Served(const at::Tensor& logits, const std::vector<SamplingSettings>& settings) {
  std::vector<RowOfDraws> asked;
  for (const SamplingSettings& sampling : settings) {
    asked.push_back({.temperature = sampling.temperature,
                     .top_p = sampling.top_p,
                     .top_k = sampling.top_k,
                     .first = static_cast<std::int32_t>(asked.size()),
                     .draws = 1,
                     .excludes = 0});
  }
  PackedUpload upload;
  const auto row = upload.Add(asked), uniform = upload.Add(Uniforms(asked.size(), 1));
  upload.Send(at::kCPU);
  std::vector<bool> served;
  for (const DrawnOnDevice& drawn :
       SampleRowsOnGpu(logits.repeat({static_cast<std::int64_t>(asked.size()), 1}),
                       {.row = upload.At<RowOfDraws>(row),
                       .uniform = upload.At<double>(uniform),
                       .excluded = nullptr,
                       .excluded_count = 0,
                       .draws = static_cast<std::int64_t>(asked.size())},
                       testing::EmulatedKernels())) {
    served.push_back(drawn.token >= 0);
  }
  return served;
}

// Else the tests above would compare the host with itself.
TEST(SamplingKernel, ServesWhatIsUsuallyAsked) {
  for (const std::int64_t count : {1000, 40000}) {
    const std::vector<SamplingSettings> settings = {{},
                                                    {.temperature = 0.0},
                                                    {.top_k = 50},
                                                    {.top_k = 400},
                                                    {.top_p = 0.9},
                                                    {.top_k = 100, .top_p = 0.95}};
    EXPECT_EQ(Served(RowOfLogits(count, Shape::kSpread, 5), settings),
              std::vector<bool>(settings.size(), true));
  }
}

// 300 tokens of nearly one likelihood: the first attempt, of 64 tokens, has a fifth of their mass.
TEST(SamplingKernel, ServesATopPOfSomeHundredTokens) {
  const at::Tensor logits = at::empty({1, 3000}, at::kFloat);
  for (int i = 0; i < 3000; ++i)
    logits.mutable_data_ptr<float>()[i * 7 % 3000] =
        (i < 300 ? 0.0F : -20.0F) - 1e-3F * static_cast<float>(i);
  EXPECT_EQ(Served(logits, {{.top_p = 0.9}}), std::vector<bool>{true});
  ExpectSameTokens(logits, {{{.top_p = 0.9}, true, Uniforms(30, 7)}}, "some hundred");
}

TEST(SamplingKernel, LeavesWideChoicesToTheHost) {
  const at::Tensor logits = RowOfLogits(6000, Shape::kFlat, 5);
  const std::vector<SamplingSettings> settings = {{.top_p = 0.9}, {}, {.top_k = 3000}, {.top_k = 1000}};
  EXPECT_EQ(Served(logits, settings), (std::vector<bool>{false, true, false, false}));
  const auto rows = RowsOf(settings, true, 3, 5);
  ExpectSameTokens(logits.repeat({static_cast<std::int64_t>(rows.size()), 1}), rows, "wide");
}

TEST(SamplingKernel, ShowsLogitsThatAreNotNumbers) {
  const at::Tensor logits = RowOfLogits(900, Shape::kSpread, 5);
  logits.mutable_data_ptr<float>()[123] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor infinite = RowOfLogits(900, Shape::kSpread, 5);
  infinite.mutable_data_ptr<float>()[123] = std::numeric_limits<float>::infinity();
  for (const SamplingSettings& sampling : AskedSettings()) {
    for (const at::Tensor& row : {logits, infinite}) {
      const BothWays both = DrawBothWays(row, {{sampling, true, {0.5}}});
      EXPECT_FALSE(std::isfinite(both.device[0].log_sum));
      EXPECT_FALSE(std::isfinite(both.host[0].log_sum));
    }
  }
}

// What the equality above rests on. Processors without fused multiply-adds round once more.
TEST(HostExponential, HasTheBitsOfTheHostsLoops) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma")) GTEST_SKIP() << "this processor has no fused multiply-add";
#endif
  constexpr std::int64_t kCount = 200000;
  std::vector<float> z(kCount), weights(kCount);
  std::vector<double> sums(kCount / 256 + 1);
  data::CounterRandom random{3};
  for (float& x : z) x = static_cast<float>(-95.0 * random.Uniform() * random.Uniform());
  z[0] = 0.0F, z[1] = -87.33654F, z[2] = std::nextafter(-87.33654F, -100.0F), z[3] = kImpossible;
  host::TemperedWeights(z.data(), kCount, 0.0, 0.7, 256, weights.data(), sums.data());
  for (std::int64_t i = 0; i < kCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    ASSERT_EQ(gpu::HostExponential(z[at] * static_cast<float>(1.0 / 0.7)), weights[at]) << z[at];
  }
}

}  // namespace
}  // namespace plural::trainer
