#include "trainer/state/validation_record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace plural::trainer {
namespace {

TEST(ValidationRecord, TheFirstOfTheBestStays) {
  ValidationRecord record;
  EXPECT_TRUE(record.Empty());
  NoteFigures(record, {{"loss", 2.0}, {"finished_share", 0.5}}, 10);
  NoteFigures(record, {{"loss", 1.0}, {"finished_share", 0.4}}, 20);
  NoteFigures(record, {{"loss", 1.0}, {"finished_share", 0.5}}, 30);
  NoteFigures(record, {{"loss", std::nan("")}, {"finished_share", std::nan("")}}, 40);
  NoteFigures(record, {{"loss", -std::numeric_limits<double>::infinity()}}, 50);
  EXPECT_EQ(record.best.at("loss").value, 1.0);
  EXPECT_EQ(record.best.at("loss").step, 20);
  EXPECT_EQ(record.best.at("finished_share").value, 0.5);
  EXPECT_EQ(record.best.at("finished_share").step, 10);
  EXPECT_FALSE(record.Empty());
}

TEST(ValidationRecord, NothingIsJudgedWithoutABestBefore) {
  EXPECT_FALSE(FindCollapse({}, {{"perplexity", 1e9}, {"finished_share", 0.0}}, 2.0));
}

TEST(ValidationRecord, FiguresThatAreAFactorWorse) {
  ValidationRecord record;
  NoteFigures(record, {{"perplexity", 8.0}, {"token_distinct_2", 0.5}, {"target_mass", 0.09}}, 10);
  EXPECT_FALSE(FindCollapse(record, {{"perplexity", 16.0}, {"token_distinct_2", 0.25}}, 2.0));
  const auto high = FindCollapse(record, {{"perplexity", 16.1}, {"token_distinct_2", 0.1}}, 2.0);
  ASSERT_TRUE(high);
  EXPECT_EQ(high->figure, "perplexity");
  EXPECT_EQ(high->value, 16.1);
  EXPECT_EQ(high->best, 8.0);
  EXPECT_EQ(high->best_step, 10);
  const auto low = FindCollapse(record, {{"perplexity", 4.0}, {"token_distinct_2", 0.24}}, 2.0);
  ASSERT_TRUE(low);
  EXPECT_EQ(low->figure, "token_distinct_2");
  EXPECT_FALSE(FindCollapse(record, {{"token_distinct_2", 0.24}}, 3.0));
  // A share that was never a tenth says little.
  EXPECT_FALSE(FindCollapse(record, {{"target_mass", 0.0}}, 2.0));
}

TEST(ValidationRecord, WhatIsNoNumberIsACollapse) {
  ValidationRecord record;
  NoteFigures(record, {{"perplexity", 8.0}, {"target_mass", 0.5}}, 10);
  EXPECT_TRUE(FindCollapse(record, {{"perplexity", std::nan("")}}, 1e6));
  EXPECT_TRUE(FindCollapse(record, {{"target_mass", std::nan("")}}, 1e6));
}

}  // namespace
}  // namespace plural::trainer
