#include "trainer/commands/failure.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "data/error.h"
#include "dist/error.h"

namespace plural::trainer {
namespace {

template <class Error>
Failure Describe(const Error& error) {
  return DescribeFailure(std::make_exception_ptr(error));
}

TEST(Failure, EveryErrorTypeHasItsExitCode) {
  EXPECT_EQ(Describe(ExitError(ExitCode::kCannotCreate, "x")).code, ExitCode::kCannotCreate);
  EXPECT_EQ(Describe(data::DataError("x")).code, ExitCode::kBadData);
  EXPECT_EQ(Describe(data::MissingInput("x")).code, ExitCode::kMissingInput);
  EXPECT_EQ(Describe(dist::ResourceError("x")).code, ExitCode::kWrongResources);
  EXPECT_EQ(Describe(dist::PeerError("x")).code, ExitCode::kPeerLost);
  EXPECT_EQ(Describe(std::bad_alloc()).code, ExitCode::kInternal);
  EXPECT_EQ(Describe(std::logic_error("x")).code, ExitCode::kInternal);
  EXPECT_EQ(Describe(7).code, ExitCode::kInternal);
}

TEST(Failure, ForeignErrorsAreCutToOneLine) {
  EXPECT_EQ(Describe(std::runtime_error("first\nsecond")).what, "internal error: first");
  EXPECT_EQ(Describe(std::bad_alloc()).what.rfind("out of memory", 0), 0U);
  try {
    TORCH_CHECK(false, "shapes differ\nframe #0: somewhere");
  } catch (...) {
    EXPECT_EQ(DescribeFailure(std::current_exception()).what, "internal error in libtorch: shapes differ");
  }
}

TEST(Failure, ReportNamesCodeRankAndPhase) {
  const Failure failure{ExitCode::kBadData, "corpus.h5: truncated"};
  EXPECT_EQ(FormatFailure(failure, 1, "train"),
            "plural: error: corpus.h5: truncated [exit 65, rank 1, phase train]\n");
  EXPECT_EQ(FormatFailure(failure, -1, ""), "plural: error: corpus.h5: truncated [exit 65]\n");
  EXPECT_EQ(FormatFailure({ExitCode::kBadRecipe, "2 problems\n  a\n  b"}, -1, "validate"),
            "plural: error: 2 problems [exit 78, phase validate]\n  a\n  b\n");
}

}  // namespace
}  // namespace plural::trainer
