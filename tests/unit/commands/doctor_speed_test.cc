#include "trainer/commands/doctor_speed.h"

#include <gtest/gtest.h>

namespace plural::trainer {
namespace {

TEST(DoctorSpeed, IsOneFigureOrFromTheSlowestToTheFastest) {
  EXPECT_EQ(SpeedText({61.24e9}), "61.2 GFLOP/s");
  EXPECT_EQ(SpeedText({61.21e9, 61.24e9}), "61.2 GFLOP/s");
  EXPECT_EQ(SpeedText({61.2e9, 58e9, 60e9}), "58.0 to 61.2 GFLOP/s");
  EXPECT_EQ(SpeedText({650.2e12}), "650.2 TFLOP/s");
  EXPECT_EQ(SpeedText({900e9, 1.1e12}), "900.0 to 1100.0 GFLOP/s");
}

TEST(DoctorSpeed, ARankBelowHalfOfTheFastestIsNamed) {
  EXPECT_EQ(SlowRankNote({60e9, 30e9}, "multiplies"), "");
  EXPECT_EQ(SlowRankNote({60e9, 61e9, 29e9}, "multiplies")
                .find("rank 2: multiplies run at 29.0 GFLOP/s, those of rank 1 at 61.0 GFLOP/s, "),
            0U);
}

TEST(DoctorSpeed, TheVerdictIsOfWhatComputed) {
  EXPECT_EQ(Verdict(false, 2, 0), "Training on CPUs can work here.");
  EXPECT_EQ(Verdict(false, 2, 2), "Training on GPUs can work here, and on CPUs.");
  EXPECT_EQ(Verdict(false, 2, 1), "Training on CPUs can work here, but on GPUs not with all of these ranks.");
  EXPECT_EQ(Verdict(true, 2, 2), "Training cannot work here.");
}

}  // namespace
}  // namespace plural::trainer
