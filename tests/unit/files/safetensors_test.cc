#include "trainer/files/safetensors.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scalar_tensor.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-safetensors-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~SafetensorsTest() override { fs::remove_all(folder_); }

  // A file of header size, header and `data_bytes` zero bytes.
  fs::path Make(const std::string& header, std::size_t data_bytes) {
    return MakeRaw(header.size(), header + std::string(data_bytes, '\0'));
  }
  fs::path MakeRaw(std::uint64_t header_size, const std::string& rest) {
    std::string bytes(sizeof header_size, '\0');
    std::memcpy(bytes.data(), &header_size, sizeof header_size);
    WriteFileDurably(folder_ / "x.safetensors", bytes + rest);
    return folder_ / "x.safetensors";
  }
  // What the reader says about a file that it must refuse.
  std::string Refusal(const fs::path& path) {
    try {
      SafetensorsReader reader(path);
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadData) << error.what();
      EXPECT_NE(std::string(error.what()).find("x.safetensors"), std::string::npos) << error.what();
      return error.what();
    }
    return "accepted";
  }
  void ExpectRefused(const std::string& header, std::size_t data_bytes, const std::string& word) {
    const std::string refusal = Refusal(Make(header, data_bytes));
    EXPECT_NE(refusal.find(word), std::string::npos) << header << " -> " << refusal;
  }

  fs::path folder_;
};

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

TEST_F(SafetensorsTest, WritesWhatItReads) {
  const std::vector<dist::NamedTensor> tensors = {
      {"f32", at::randn({3, 5})},
      {"f64", at::randn({2, 2}, at::kDouble)},
      {"bf16", at::randn({7}).to(at::kBFloat16)},
      {"f16", at::randn({3}).to(at::kHalf)},
      {"i64", at::arange(4)},
      {"i32", at::arange(3).to(at::kInt)},
      {"u8", at::arange(5).to(at::kByte)},
      {"scalar", at::scalar_tensor(2.5)},
      {"empty", at::empty({0, 4})},
      {"turned", at::randn({4, 3}).t()},  // not contiguous
  };
  const WrittenFile written = WriteSafetensors(folder_ / "a", tensors, {{"format", "pt"}, {"n", "1"}});
  EXPECT_EQ(written.size_bytes, static_cast<std::int64_t>(fs::file_size(folder_ / "a")));
  EXPECT_EQ(written.sha256, data::Sha256OfFile(folder_ / "a"));

  const SafetensorsReader reader(folder_ / "a");
  EXPECT_EQ(reader.Entries().size(), tensors.size());
  EXPECT_EQ(reader.Metadata().at("n"), "1");
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor read = reader.Read(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read, tensor)) << name;
    // Aligned for readers that map the file.
    EXPECT_EQ(reader.Entries().at(name).begin % static_cast<std::int64_t>(tensor.element_size()), 0) << name;
  }
}

TEST_F(SafetensorsTest, BytesDoNotDependOnTheOrderGiven) {
  const dist::NamedTensor a = {"a", at::randn({2})}, b = {"b", at::randn({3})};
  const WrittenFile first = WriteSafetensors(folder_ / "1", {a, b});
  const WrittenFile second = WriteSafetensors(folder_ / "2", {b, a});
  EXPECT_EQ(first.sha256, second.sha256);
  EXPECT_THROW(WriteSafetensors(folder_ / "3", {a, a}), std::logic_error);
}

TEST_F(SafetensorsTest, HeaderSizeIsCheckedBeforeAnythingIsAllocated) {
  EXPECT_NE(Refusal(MakeRaw(std::uint64_t{1} << 62, "{}")).find("header of"), std::string::npos);
  EXPECT_NE(Refusal(MakeRaw(~std::uint64_t{0}, "{}")).find("header of"), std::string::npos);
  EXPECT_NE(Refusal(MakeRaw(3, "{}")).find("header of"), std::string::npos);  // one byte past the end
  EXPECT_NE(Refusal(MakeRaw(1, "{}")).find("header of"), std::string::npos);
  EXPECT_NE(Refusal(MakeRaw(0, "{}")).find("header of"), std::string::npos);
  WriteFileDurably(folder_ / "x.safetensors", "short");
  EXPECT_NE(Refusal(folder_ / "x.safetensors").find("too few"), std::string::npos);
  WriteFileDurably(folder_ / "x.safetensors", "PK\x03\x04 a pickle archive begins like this");
  EXPECT_NE(Refusal(folder_ / "x.safetensors").find("pickle"), std::string::npos);
}

TEST_F(SafetensorsTest, NamesAGitLfsPointerForWhatItIs) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
  WriteFileDurably(folder_ / "x.safetensors", pointer);
  EXPECT_NE(Refusal(folder_ / "x.safetensors").find("git lfs pull"), std::string::npos);
  WriteFileDurably(folder_ / "config.json", pointer);
  try {
    ReadJsonFile(folder_ / "config.json");
    FAIL() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kBadData);
    EXPECT_NE(std::string(error.what()).find("git lfs pull"), std::string::npos) << error.what();
  }
}

TEST_F(SafetensorsTest, HeaderGrammar) {
  EXPECT_EQ(Refusal(Make("{}   ", 0)), "accepted");
  EXPECT_EQ(Refusal(Make("{" + Tensor("a", "F32", "[]", "[0,4]") + "}", 4)), "accepted");
  EXPECT_EQ(Refusal(Make("{" + Tensor("a", "F32", "[0,9007199254740992]", "[0,0]") + "}", 0)), "accepted");

  const std::string good = Tensor("a", "F32", "[1]", "[0,4]");
  ExpectRefused(" {" + good + "}", 4, "begin with '{'");
  ExpectRefused("[" + good + "]", 4, "begin with '{'");
  ExpectRefused("{" + good, 4, "valid JSON");
  ExpectRefused("{" + good + "} x", 4, "valid JSON");
  ExpectRefused("{" + good + "}" + std::string(1, '\0') + "x", 4, "NUL");
  ExpectRefused("{" + good + "," + good + "}", 8, "stands twice");
  ExpectRefused("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
                "stands twice");
  ExpectRefused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}," + good + "}", 4, "stands twice");
  ExpectRefused("{\"__metadata__\":{},\"__metadata__\":{}," + good + "}", 4, "stands twice");
  ExpectRefused("{\"__metadata__\":{\"k\":1}," + good + "}", 4, "a number");
  ExpectRefused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "all needed");
  ExpectRefused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"extra\":[]}}", 4,
                "unknown field");
  ExpectRefused("{\"a\":[[[[[[]]]]]]}", 0, "a list");
  ExpectRefused("{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "a list");
  ExpectRefused("{\"a\xff\":{}}", 0, "valid JSON");
  ExpectRefused("{" + Tensor("a", "F4", "[1]", "[0,4]") + "}", 4, "dtype 'F4'");
  ExpectRefused("{" + Tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4, "1.0");
  ExpectRefused("{" + Tensor("a", "F32", "[1e0]", "[0,4]") + "}", 4, "1e0");
  ExpectRefused("{" + Tensor("a", "F32", "[-1]", "[0,4]") + "}", 4, "negative");
  ExpectRefused("{" + Tensor("a", "F32", "[9007199254740993]", "[0,4]") + "}", 4, "2^53");
  ExpectRefused("{" + Tensor("a", "F32", "[99999999999999999999999]", "[0,4]") + "}", 4, "2^53");
  ExpectRefused("{" + Tensor("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}", 4, "dimensions");
}

// A name may hold anything; what a terminal would obey must not reach it.
TEST_F(SafetensorsTest, NamesStayOnOneLineOfAnError) {
  const std::string refusal = Refusal(Make("{" + Tensor(R"(\u001b[2J\n)", "F4", "[1]", "[0,4]") + "}", 4));
  EXPECT_NE(refusal.find(R"('\x1b[2J\n')"), std::string::npos) << refusal;
}

TEST_F(SafetensorsTest, Layout) {
  const auto two = [](const std::string& a, const std::string& b) {
    return "{" + Tensor("a", "F32", "[1]", a) + "," + Tensor("b", "F32", "[1]", b) + "}";
  };
  EXPECT_EQ(Refusal(Make(two("[4,8]", "[0,4]"), 8)), "accepted");  // any order in the header
  ExpectRefused(two("[0,4]", "[0,4]"), 8, "overlap");
  ExpectRefused(two("[0,4]", "[8,12]"), 12, "hole");
  ExpectRefused(two("[4,8]", "[8,12]"), 12, "hole");
  ExpectRefused(two("[0,4]", "[4,8]"), 7,
                "tensor 'b' ends at byte 8 of the data, the file holds 7: truncated");
  ExpectRefused(two("[0,4]", "[4,8]"), 3, "tensor 'a' ends at byte 4");
  ExpectRefused(two("[0,4]", "[4,8]"), 9, "describes 8 bytes of data, the file holds 9: damaged");
  ExpectRefused(two("[0,4]", "[8,4]"), 8, "first not above");
  ExpectRefused("{" + Tensor("a", "F32", "[2]", "[0,4]") + "}", 4, "needs 8 bytes");
  ExpectRefused("{" + Tensor("a", "F32", "[1]", "[0,4,4]") + "}", 4, "two numbers");
  // 2^53 * 2^11 * 4 bytes wraps around to 0 in 64 bits.
  ExpectRefused("{" + Tensor("a", "F32", "[9007199254740992,2048]", "[0,0]") + "}", 0, "counted");
  ExpectRefused("{" + Tensor("a", "F32", "[0,9007199254740992,9007199254740992]", "[0,0]") + "}", 0,
                "counted");
}

TEST_F(SafetensorsTest, NoticesAFileThatChangesUnderIt) {
  WriteSafetensors(folder_ / "x.safetensors", {{"a", at::ones({1000})}, {"b", at::ones({1000})}});
  const SafetensorsReader reader(folder_ / "x.safetensors");
  EXPECT_TRUE(at::equal(reader.Read("b"), at::ones({1000})));
  fs::resize_file(folder_ / "x.safetensors", fs::file_size(folder_ / "x.safetensors") - 4000);
  EXPECT_THROW(reader.Read("b"), ExitError);  // it would be a bus error under a mapping
  EXPECT_THROW(reader.Read("a"), ExitError);  // still complete, but no longer the same file
}

TEST_F(SafetensorsTest, MissingFile) {
  try {
    SafetensorsReader reader(folder_ / "absent");
    FAIL();
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kMissingInput);
  }
}

}  // namespace
}  // namespace plural::trainer
