// Dropout at several places at once, the kernel's own source run by an emulation of blocks of GPU threads,
// against the loops of the CPU: the same bits.

#include "trainer/ops/dropout_cuda.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

std::vector<Dropout> PlacesOf(std::int64_t rows, std::size_t count) {
  const Dropout dropout{at::arange(11, 11 + rows, at::kLong), 5};
  std::vector<Dropout> places;
  for (std::size_t place = 0; place < count; ++place) places.push_back(dropout.At(place));
  return places;
}

TEST(DropSites, HaveTheBitsOfOneAfterTheOther) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t features : {8, 1032, 4104}) {
      for (const std::size_t count : {1, 3, 4}) {
        const double p = count == 3 ? 0.1 : 1.0 / 3.0;
        const std::vector<Dropout> places = PlacesOf(5, count);
        const at::Tensor x = testing::RandomTensor({5, features}, 1).to(dtype);
        ASSERT_TRUE(DropsTogether(places, x, &kernels));
        const at::Tensor together = DroppedTogether(places, p, x, &kernels);
        const at::Tensor dx =
            testing::RandomTensor({static_cast<std::int64_t>(count), 5, features}, 2).to(dtype);
        const at::Tensor sum = testing::RandomTensor({5, features}, 3).to(dtype), found = sum.clone();
        for (std::size_t place = 0; place < count; ++place) {
          const auto s = static_cast<std::int64_t>(place);
          EXPECT_TRUE(together.select(0, s).equal(Dropped(places[place], p, x))) << dtype << " " << place;
          sum.add_(Dropped(places[place], p, dx.select(0, s)));
        }
        AddDropped(found, places, p, dx, &kernels);
        EXPECT_TRUE(found.equal(sum)) << dtype << " " << features << " " << count;
      }
    }
  }
}

TEST(DropSites, LeaveWhatTheyDoNotServeToOthers) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const at::Tensor x = testing::RandomTensor({5, 16}, 1).to(at::kFloat);
  EXPECT_FALSE(DropsTogether(PlacesOf(5, 2), x));  // on the CPU, with none given
  EXPECT_FALSE(DropsTogether(PlacesOf(5, 5), x, &kernels));
  EXPECT_FALSE(DropsTogether({}, x, &kernels));
  EXPECT_FALSE(DropsTogether(PlacesOf(5, 2), x.to(at::kDouble), &kernels));
  EXPECT_FALSE(DropsTogether(PlacesOf(5, 2), x.narrow(1, 0, 12), &kernels));
}

}  // namespace
}  // namespace plural::trainer
