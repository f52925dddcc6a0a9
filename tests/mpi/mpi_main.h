// The main of a test that runs on real ranks: include it once, in the test's only source file.
//
// Owns: World, and the verdict: the highest result of all ranks is every rank's exit code. Does not own:
// collectives; each test makes its own. Use EXPECT_ before a collective, never ASSERT_: a rank that
// leaves a test early lets its peers wait until CTest's time limit. An exception ends the job with 70,
// a world that cannot be made with 69.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <memory>

#include "dist/collectives.h"
#include "dist/error.h"
#include "dist/world.h"

namespace plural::testing {

namespace internal {
inline const dist::World* world = nullptr;

// Ranks above 0 print nothing but their failures.
class FailuresOnly : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: %s\n", world->Rank(),
                 result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                 result.message());
  }
};
}  // namespace internal

inline const dist::World& World() { return *internal::world; }

inline int RunTests(const dist::World& world) try {
  if (world.Rank() > 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new internal::FailuresOnly);
  }
  double result = RUN_ALL_TESTS();
  dist::MakeMpiCollectives(world)->AllReduceMax({&result, 1});
  return static_cast<int>(result);
} catch (const std::exception& error) {
  std::fprintf(stderr, "[rank %d] %s\n", world.Rank(), error.what());
  world.Abort(70);
}

inline int Main(int argc, char** argv) try {
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  const dist::World world(&argc, &argv);
  internal::world = &world;
  return RunTests(world);
} catch (const dist::ResourceError& error) {  // no world
  std::fprintf(stderr, "%s\n", error.what());
  return 69;
}

}  // namespace plural::testing

int main(int argc, char** argv) { return plural::testing::Main(argc, argv); }
