#include "data/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "data/error.h"

namespace plural::data {
namespace {

// Vectors of FIPS 180-4's examples.
constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(Sha256OfBytes(""), kEmpty);
  EXPECT_EQ(Sha256OfBytes("abc"), kAbc);
  EXPECT_EQ(Sha256OfBytes(std::string(1000000, 'a')), kMillionA);
}

TEST(Sha256, PiecesGiveTheHashOfTheWhole) {
  const std::string text(1000000, 'a');
  Sha256 hash;
  for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
    size = std::min<std::size_t>(text.size() - at, 1 + at % 977);
    hash.Update(text.data() + at, size);
  }
  EXPECT_EQ(hash.Hex(), kMillionA);
}

TEST(Sha256, FileLargerThanTheBuffer) {
  const auto path = std::filesystem::path(testing::TempDir()) / "sha256_test.bin";
  const std::string text(3 * (1 << 20) + 17, 'x');
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(Sha256OfFile(path), Sha256OfBytes(text));
  std::filesystem::remove(path);
}

TEST(Sha256, UnreadableIsMissingInput) {
  EXPECT_THROW(Sha256OfFile("no/such/file"), MissingInput);
  EXPECT_THROW(Sha256OfFile(testing::TempDir()), MissingInput);  // a folder
}

}  // namespace
}  // namespace plural::data
