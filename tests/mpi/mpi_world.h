// The ranks that the tests of this folder run on: mpi_main.cc makes the world and gives every rank the same
// verdict.
//
// A test makes its own collectives. Use EXPECT_ before a collective, never ASSERT_: a rank that leaves a test
// early lets its peers wait until CTest's time limit.
#pragma once

#include <gtest/gtest.h>

#include "dist/collectives.h"
#include "dist/world.h"

namespace plural::testing {

const dist::World& World();

}  // namespace plural::testing
