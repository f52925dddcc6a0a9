#include "dist/patience.h"

#include <gtest/gtest.h>

namespace plural::dist {
namespace {

TEST(Patience, NamesTheOtherRanksByMachine) {
  const std::vector<std::string> hosts = {"a", "a", "a", "b", "b", "c"};
  EXPECT_EQ(PeersOf(hosts, 0), "ranks 1-2 on a, ranks 3-4 on b, rank 5 on c");
  EXPECT_EQ(PeersOf(hosts, 1), "rank 0 on a, rank 2 on a, ranks 3-4 on b, rank 5 on c");
  EXPECT_EQ(PeersOf(hosts, 5), "ranks 0-2 on a, ranks 3-4 on b");
  EXPECT_EQ(PeersOf({"a"}, 0), "no other rank");
}

TEST(Patience, EndsWithTheWorkOrWithTheDeadline) {
  int polls = 0;
  AwaitWithin({3600.0, ""}, "sum", "rank 0", [&] { return ++polls == 100; });
  EXPECT_EQ(polls, 100);
  polls = 0;
  AwaitWithin({0.0, ""}, "sum", "rank 0", [&] { return ++polls == 100; });  // without end
  try {
    AwaitWithin({1e-3, "rank 1 on b"}, "ncclAllReduce", "rank 0 of 2", [] { return false; });
    FAIL() << "waited for ever";
  } catch (const PeerError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("ncclAllReduce did not end"), std::string::npos) << what;
    EXPECT_NE(what.find("on rank 0 of 2: it waits for rank 1 on b"), std::string::npos) << what;
  }
}

}  // namespace
}  // namespace plural::dist
