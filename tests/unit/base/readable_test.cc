#include "trainer/base/readable.h"

#include <gtest/gtest.h>

namespace plural {
namespace {

TEST(Readable, CountsHavePlurals) {
  EXPECT_EQ(Counted(0, "file"), "0 files");
  EXPECT_EQ(Counted(1, "file"), "1 file");
  EXPECT_EQ(Counted(12, "trained parameter"), "12 trained parameters");
}

TEST(Readable, FourDigitsAndNoExponentWherePeopleReadNumbers) {
  EXPECT_EQ(FourDigits(10.36158166060529), "10.36");
  EXPECT_EQ(FourDigits(31630.021970533347), "31630");
  EXPECT_EQ(FourDigits(4.714031859790468e-13), "4.714e-13");
  EXPECT_EQ(FourDigits(0.000123456), "0.0001235");
  EXPECT_EQ(FourDigits(0.0), "0");
  EXPECT_EQ(FourDigits(-2.5), "-2.5");
}

}  // namespace
}  // namespace plural
