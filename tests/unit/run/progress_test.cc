#include "trainer/run/progress.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <string>

namespace plural::trainer {
namespace {

const std::string kNote = "loss 10.36  6.59 groups/s  lr 5e-05";

TEST(Progress, ALineFitsEveryTerminal) {
  for (std::size_t columns = 20; columns <= 200; ++columns) {
    const std::string line = FitLine("train", 0.25, "1000/4000 steps", kNote, "1 h 02 min left", columns);
    EXPECT_LT(line.size(), columns);
    EXPECT_NE(line.find("1000/4000"), std::string::npos);
  }
}

TEST(Progress, WhatANarrowTerminalLosesFirst) {
  const auto line = [](std::size_t columns) {
    return FitLine("train", 0.5, "10/20 steps", kNote, "9 s left", columns);
  };
  EXPECT_EQ(line(120),
            "train [############............] 10/20 steps  loss 10.36  6.59 groups/s  lr 5e-05  9 s left");
  EXPECT_EQ(line(80), "train [######......] 10/20 steps  loss 10.36  6.59 groups/s  lr 5e-05  9 s left");
  EXPECT_EQ(line(72), "train 10/20 steps  loss 10.36  6.59 groups/s  lr 5e-05  9 s left");
  EXPECT_EQ(line(60), "train 10/20 steps  loss 10.36  6.59 groups/s  9 s left");
  EXPECT_EQ(line(40), "train 10/20 steps  loss 10.36  9 s left");
  EXPECT_EQ(line(20), "train 10/20 steps");
}

TEST(Progress, NoBarWhereTheTotalIsNotKnown) {
  EXPECT_EQ(FitLine("score", -1.0, "7 sequences", "3 sequences/s", "", 80),
            "score 7 sequences  3 sequences/s");
}

}  // namespace
}  // namespace plural::trainer
