// The main of the tests that run on real ranks. The highest result of all ranks is every rank's exit code; an
// exception ends the job with 70, a world that cannot be made ends it with 69.
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>

#include "dist/collectives.h"
#include "dist/error.h"
#include "dist/world.h"
#include "tests/mpi/mpi_world.h"

namespace plural::testing {
namespace {

const dist::World* the_world = nullptr;

// Ranks above 0 print nothing but their failures.
class FailuresOnly : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: %s\n", World().Rank(),
                 result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                 result.message());
  }
};

int RunTests(const dist::World& world) try {
  if (world.Rank() > 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  double result = RUN_ALL_TESTS();
  dist::MakeMpiCollectives(world)->AllReduceMax({&result, 1});
  return static_cast<int>(result);
} catch (const std::exception& error) {
  std::fprintf(stderr, "[rank %d] %s\n", world.Rank(), error.what());
  world.Abort(70);
}

}  // namespace

const dist::World& World() { return *the_world; }

}  // namespace plural::testing

int main(int argc, char** argv) try {
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  const plural::dist::World world(&argc, &argv);
  plural::testing::the_world = &world;
  return plural::testing::RunTests(world);
} catch (const plural::dist::ResourceError& error) {  // no world
  std::fprintf(stderr, "%s\n", error.what());
  return 69;
}
