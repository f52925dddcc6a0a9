// The kernels of attention over a cache, by their own source in an emulation of blocks of GPU threads,
// against a softmax in fp64.

#include "trainer/ops/path_attention_cuda.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

struct PathsCase {
  std::vector<std::int64_t> tokens;  // of each path, the new one included
  std::int64_t heads = 2, shared_heads = 1, dim = 64, window = 0;
  double softcap = 0.0;
  at::ScalarType dtype = at::kBFloat16;
};

// Paths that share the first slots that they have in common, in a pool whose slots lie in no order.
struct PathsInPool {
  std::vector<std::int32_t> first = {0}, slot;
  std::int64_t slots = 0, longest = 0;

  explicit PathsInPool(const std::vector<std::int64_t>& tokens) {
    constexpr std::int64_t kShared = 20;
    slots = kShared;
    for (const std::int64_t count : tokens) slots += count;
    std::int64_t next = kShared;
    const auto place = [this](std::int64_t i) { return static_cast<std::int32_t>(i * 7919 % slots); };
    while (slots % 7919 == 0) ++slots;  // else places would repeat
    for (const std::int64_t count : tokens) {
      for (std::int64_t t = 0; t < count; ++t)
        slot.push_back(t < kShared && t + 1 < count ? place(t) : place(next++));
      first.push_back(static_cast<std::int32_t>(slot.size()));
      longest = std::max(longest, count);
    }
  }
  PathsOnDevice Lists() const { return {first.data(), slot.data(), longest}; }
  at::Tensor PathOf(std::size_t row, std::int64_t window) const {
    std::vector<std::int64_t> path(slot.begin() + first[row], slot.begin() + first[row + 1]);
    if (window > 0 && static_cast<std::int64_t>(path.size()) > window)
      path.erase(path.begin(), path.end() - window);
    return at::tensor(at::ArrayRef<std::int64_t>(path), at::kLong);
  }
};

struct PathInputs {
  at::Tensor q, k, v, k_pool, v_pool;

  PathInputs(const PathsCase& c, std::int64_t slots) {
    const auto rows = static_cast<std::int64_t>(c.tokens.size());
    const auto draw = [&](std::int64_t count, std::int64_t heads, std::uint64_t key) {
      return testing::RandomTensor({count, heads, c.dim}, key).to(c.dtype);
    };
    q = draw(rows, c.heads, 1) * 3.0, k = draw(rows, c.shared_heads, 2) * 3.0,
    v = draw(rows, c.shared_heads, 3);
    k_pool = draw(slots, c.shared_heads, 4) * 3.0, v_pool = draw(slots, c.shared_heads, 5);
  }
};

host::ScoreTerms TermsOf(const PathsCase& c) {
  return {.scale = 1.0 / std::sqrt(static_cast<double>(c.dim)), .softcap = c.softcap};
}

at::Tensor ByPathKernel(const PathsCase& c, const PathsInPool& paths, const PathInputs& in) {
  return PathAttentionOnGpu(in.q, in.k, in.v, in.k_pool, in.v_pool, paths.Lists(), TermsOf(c), c.window,
                            testing::EmulatedKernels());
}

// Of pools that have the new tokens.
at::Tensor PathSoftmax(const PathsCase& c, const PathsInPool& paths, const PathInputs& in) {
  const std::int64_t sharing = c.heads / c.shared_heads;
  const host::ScoreTerms terms = TermsOf(c);
  std::vector<at::Tensor> rows;
  for (std::size_t r = 0; r < c.tokens.size(); ++r) {
    const at::Tensor path = paths.PathOf(r, c.window);
    const auto heads = [&](const at::Tensor& pool) {  // [H, T, D]
      return pool.to(at::kDouble).index_select(0, path).transpose(0, 1).repeat_interleave(sharing, 0);
    };
    const at::Tensor q = in.q[static_cast<std::int64_t>(r)].to(at::kDouble).unsqueeze(1);
    at::Tensor scores = at::matmul(q, heads(in.k_pool).transpose(1, 2)) * terms.scale;
    if (c.softcap > 0.0) scores = testing::NaiveCap(scores, c.softcap);
    rows.push_back(at::matmul(at::softmax(scores, -1), heads(in.v_pool)).reshape({1, -1}));
  }
  return at::cat(rows, 0);
}

// Rounding, as for a tree's attention (tree_attention_cuda_test): of exponents that are sums of `dim`
// products, and of a bf16 result.
double AllowedForPaths(const PathsCase& c) {
  const auto dim = static_cast<double>(c.dim);
  return 2.0 * 9.0 * std::sqrt(dim) * dim / (1 << 24) +
         (c.dtype == at::kBFloat16 ? 1.0 / 256.0 : 16.0 / (1 << 24));
}

void ExpectEqualToPathSoftmax(const PathsCase& c) {
  const PathsInPool paths(c.tokens);
  const PathInputs in(c, paths.slots);
  const at::Tensor k_before = in.k_pool.clone(), v_before = in.v_pool.clone();
  const at::Tensor found = ByPathKernel(c, paths, in);
  for (std::size_t r = 0; r < c.tokens.size(); ++r) {
    const auto newest =
        static_cast<std::int64_t>(paths.slot[static_cast<std::size_t>(paths.first[r + 1]) - 1]);
    k_before[newest].copy_(in.k[static_cast<std::int64_t>(r)]);
    v_before[newest].copy_(in.v[static_cast<std::int64_t>(r)]);
  }
  ASSERT_TRUE(at::equal(in.k_pool, k_before) && at::equal(in.v_pool, v_before))
      << "new tokens alone are stored";
  ASSERT_LT(testing::RelativeError(found.to(at::kDouble), PathSoftmax(c, paths, in)), AllowedForPaths(c))
      << c.heads << " heads of " << c.dim << " on " << c.shared_heads << ", window " << c.window << ", cap "
      << c.softcap << ", " << c.dtype << ", longest path " << paths.longest;
}

constexpr at::ScalarType kPathTypes[] = {at::kFloat, at::kBFloat16};

TEST(PathAttentionKernels, EqualSoftmaxForPathsOfAnyLength) {
  for (const at::ScalarType dtype : kPathTypes) {
    ExpectEqualToPathSoftmax({.tokens = {1}, .dtype = dtype});
    ExpectEqualToPathSoftmax({.tokens = {2, 1, 31, 32, 33, 63, 64, 65}, .dtype = dtype});
    ExpectEqualToPathSoftmax({.tokens = {255, 256}, .dtype = dtype});
    ExpectEqualToPathSoftmax({.tokens = {257, 3, 600, 512, 513}, .dtype = dtype});
  }
}

TEST(PathAttentionKernels, WindowsAndBoundedScoresOfPaths) {
  for (const at::ScalarType dtype : kPathTypes) {
    for (const std::int64_t window : {1, 7, 256, 300}) {
      for (const double softcap : {0.0, 2.0}) {
        ExpectEqualToPathSoftmax(
            {.tokens = {5, 299, 560, 7}, .window = window, .softcap = softcap, .dtype = dtype});
      }
    }
  }
}

TEST(PathAttentionKernels, AnyNumberOfHeadsPerKeyHeadOfPaths) {
  for (const at::ScalarType dtype : kPathTypes) {
    for (const auto& [heads, shared_heads] :
         {std::pair{1, 1}, {4, 1}, {8, 2}, {7, 1}, {6, 2}, {3, 3}, {16, 1}, {18, 2}}) {
      ExpectEqualToPathSoftmax(
          {.tokens = {40, 270}, .heads = heads, .shared_heads = shared_heads, .dtype = dtype});
    }
  }
}

TEST(PathAttentionKernels, HeadDimensionsOfPathsUpTo256) {
  for (const at::ScalarType dtype : kPathTypes) {
    for (const std::int64_t dim : {8, 72, 96, 128, 256})
      ExpectEqualToPathSoftmax(
          {.tokens = {35, 258}, .heads = 2, .shared_heads = 2, .dim = dim, .dtype = dtype});
  }
}

// To the bit, also where the others' paths have several parts and its own has one.
TEST(PathAttentionKernels, RowsDoNotDependOnThoseBeside) {
  for (const at::ScalarType dtype : kPathTypes) {
    const PathsCase alone{.tokens = {90}, .dtype = dtype}, beside{.tokens = {90, 700}, .dtype = dtype};
    const PathsInPool paths(beside.tokens);
    const PathInputs in(beside, paths.slots);
    const at::Tensor both = ByPathKernel(beside, paths, in);
    PathsInPool first = paths;
    first.longest = 90;
    const at::Tensor one =
        PathAttentionOnGpu(in.q.narrow(0, 0, 1), in.k.narrow(0, 0, 1), in.v.narrow(0, 0, 1), in.k_pool,
                           in.v_pool, first.Lists(), TermsOf(alone), 0, testing::EmulatedKernels());
    EXPECT_TRUE(at::equal(both.narrow(0, 0, 1), one)) << dtype;
  }
}

// The blocks of a launch, the last one first.
struct BackwardLaunch {
  template <class Program, class Arguments>
  int Start(int x, int y, const Arguments& arguments) const {
    for (int i = x * y; i-- > 0;) {
      gpu::EmulatedBlock<typename Program::Registers> block(Program::kThreads, Program::kBytes);
      Program::Run(block, arguments, i % x, i / x);
    }
    return 0;
  }
};

// Of sixteen heads on one key head two blocks need the new token's keys, which one of them stores.
TEST(PathAttentionKernels, BlocksRunInAnyOrder) {
  const PathsCase c{.tokens = {40, 300, 700}, .heads = 16};
  const PathsInPool paths(c.tokens);
  const PathInputs in(c, paths.slots), again(c, paths.slots);
  CudaKernels backward;
  backward.path_attention = [](const PathAttentionArguments& arguments, void*) {
    return gpu::StartPathAttention(arguments, BackwardLaunch{});
  };
  const at::Tensor last_first = PathAttentionOnGpu(again.q, again.k, again.v, again.k_pool, again.v_pool,
                                                   paths.Lists(), TermsOf(c), 0, backward);
  EXPECT_TRUE(at::equal(last_first, ByPathKernel(c, paths, in)));
}

// As in a joined projection; rows that are not aligned are copied.
TEST(PathAttentionKernels, TakeQueriesThatLieApart) {
  const PathsCase c{.tokens = {12, 300}};
  const PathsInPool paths(c.tokens);
  const PathInputs in(c, paths.slots);
  const at::Tensor dense = ByPathKernel(c, paths, in);
  for (const std::int64_t gap : {8, 3}) {
    const auto apart = [gap](const at::Tensor& x) {
      const at::Tensor wide = at::empty({x.size(0), x.size(1) * x.size(2) + gap}, x.options());
      const at::Tensor part = wide.narrow(1, gap, x.size(1) * x.size(2)).view(x.sizes());
      return part.copy_(x);
    };
    PathInputs wide = in;
    wide.q = apart(in.q), wide.k = apart(in.k), wide.v = apart(in.v);
    EXPECT_TRUE(at::equal(ByPathKernel(c, paths, wide), dense)) << gap;
  }
}

TEST(PathAttentionKernels, SayWhatTheyServe) {
  const CudaKernels kernels = testing::EmulatedKernels(), none;
  EXPECT_TRUE(PathAttentionServesOnGpu(&kernels, at::kBFloat16, 128));
  EXPECT_FALSE(PathAttentionServesOnGpu(&none, at::kBFloat16, 128));
  EXPECT_FALSE(PathAttentionServesOnGpu(nullptr, at::kBFloat16, 128));
  EXPECT_FALSE(PathAttentionServesOnGpu(&kernels, at::kDouble, 128));
  EXPECT_FALSE(PathAttentionServesOnGpu(&kernels, at::kFloat, 60));
  EXPECT_FALSE(PathAttentionServesOnGpu(&kernels, at::kFloat, 264));
}

}  // namespace
}  // namespace plural::trainer
