#include "trainer/kernels/host_loops.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "data/random.h"

namespace plural::trainer::host {
namespace {

template <class T>
void ExpectLseOfStatistics() {
  data::CounterRandom random{1};
  for (const std::int64_t count : {1, 15, 1024, 1025, 32000}) {
    std::vector<T> z;
    for (std::int64_t i = 0; i < count; ++i) z.push_back(static_cast<T>(random.Below(1 << 20)) * T{3e-5});
    for (const double temperature : {1.0, 0.7}) {
      const RowStatistics whole = StatisticsOfRow(z.data(), count, temperature);
      EXPECT_EQ(LseOfRow(z.data(), count, temperature), whole.lse) << count << " " << temperature;
      EXPECT_EQ(whole.entropy_nats > 0.0, count > 1);
    }
  }
}

// Answers and losses must not change with what else is asked of a row.
TEST(LseOfRow, HasTheBitsOfAllStatistics) {
  ExpectLseOfStatistics<float>();
  ExpectLseOfStatistics<double>();
}

}  // namespace
}  // namespace plural::trainer::host
