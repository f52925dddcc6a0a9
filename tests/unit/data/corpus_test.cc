#include "data/corpus.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "data/error.h"
#include "data/sha256.h"
#include "tests/unit/support/corpus_file.h"

// With the leak sanitizer: the HDF5 library loses memory of its own when it refuses damaged metadata. What
// this project could leak is identifiers, and TearDown counts those.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace plural::data {
namespace {

namespace fs = std::filesystem;

class CorpusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("corpus_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
    path_ = folder_ / "corpus.h5";
  }
  // No id of the library stays open, whatever happened.
  void TearDown() override {
    EXPECT_EQ(H5Fget_obj_count(static_cast<hid_t>(H5F_OBJ_ALL), H5F_OBJ_ALL), 0);
    fs::remove_all(folder_);
  }

  fs::path folder_;
  fs::path path_;
};

std::string Bytes(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void WriteBytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Everything that a corpus says, in one string.
std::string ContentOf(const fs::path& path) {
  Corpus corpus(path);
  std::string content = corpus.Info().source_format + corpus.Info().tokenizer_sha256 +
                        corpus.Info().tokenizer_name + corpus.Info().template_name +
                        corpus.Info().template_json + std::to_string(corpus.Info().possibilities);
  for (std::int64_t g = 0; g < corpus.Info().groups; ++g) {
    const Group group = corpus.Read(g);
    content += "|" + group.id + ":" + corpus.Decode(group.prompt_tokens);
    for (const auto& tail : group.tails) content += "," + corpus.Decode(tail);
    for (const Response& response : group.responses) {
      content += ";" + corpus.Decode(response.tokens) + std::to_string(response.weight);
      for (const std::uint8_t mask : response.masks) content += std::to_string(mask);
    }
  }
  return content;
}

// The message of the DataError that opening and reading all of the file throws; "" when nothing is thrown.
std::string Refusal(const fs::path& path, const CorpusLimits& limits = {}) {
  try {
    Corpus corpus(path, limits);
    for (std::int64_t g = 0; g < corpus.Info().groups; ++g) corpus.Read(g);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST_F(CorpusTest, ReadsWhatWasWritten) {
  CorpusFile().Write(path_);
  Corpus corpus(path_);
  const CorpusInfo& info = corpus.Info();
  EXPECT_EQ(info.groups, 2);
  EXPECT_EQ(info.responses, 4);
  EXPECT_EQ(info.prompt_tokens, 3);
  EXPECT_EQ(info.response_tokens, 9);
  EXPECT_EQ(info.possibilities, 2);
  EXPECT_EQ(info.vocab_size, 10);
  EXPECT_EQ(info.source_format, "dialogue");
  EXPECT_EQ(info.tokenizer_sha256, std::string(64, 'a'));
  EXPECT_EQ(info.tokenizer_name, "tokenizer.json");
  EXPECT_EQ(info.template_name, "plain");
  EXPECT_EQ(info.template_json, "{}");
  EXPECT_EQ(info.sha256, "");  // no sidecar

  const Group group = corpus.Read(0);
  EXPECT_EQ(group.index, 0);
  EXPECT_EQ(group.id, "g0");
  EXPECT_EQ(group.prompt_tokens, (std::vector<Token>{1, 2}));
  EXPECT_EQ(group.tails, (std::vector<std::vector<Token>>{{3}, {4, 5}, {4, 6}}));
  EXPECT_EQ(group.Possibilities(), 2);
  ASSERT_EQ(group.responses.size(), 2U);
  EXPECT_EQ(group.responses[1].tokens, (std::vector<Token>{7, 9}));
  EXPECT_EQ(group.responses[1].weight, 0.5);
  EXPECT_TRUE(group.responses[0].Penalised(0, MaskMode::kContentFirst));
  EXPECT_FALSE(group.responses[0].Penalised(1, MaskMode::kContentFirst));
  EXPECT_TRUE(group.responses[0].Penalised(1, MaskMode::kAllFirst));
  EXPECT_FALSE(group.responses[0].Penalised(1, MaskMode::kRepoCompat));
  EXPECT_EQ(corpus.Read(1).responses[1].tokens, (std::vector<Token>{5, 9}));
  EXPECT_EQ(corpus.Decode({7, 8, 0}), "hia");
}

TEST_F(CorpusTest, KnowsLengthsWithoutReadingTokens) {
  CorpusFile().Write(path_);
  const Corpus corpus(path_);
  const Corpus::GroupLengths lengths = corpus.Lengths(0);
  EXPECT_EQ(lengths.prompt, 2);
  EXPECT_EQ(lengths.longest_tail, 2);
  EXPECT_EQ(lengths.responses, (std::vector<std::int32_t>{3, 2}));
  EXPECT_EQ(corpus.LongestSequence().tokens, 2 + 2 + 3);
  EXPECT_EQ(corpus.LongestSequence().group, 0);
}

TEST_F(CorpusTest, ReadsGroupsAcrossManyChunks) {
  CorpusFile file;
  auto& prompts = file.Ints<std::int32_t>("prompt_tokens");
  prompts.clear();
  for (int i = 0; i < 1000; ++i) prompts.push_back(i % 10);
  file.Ints<std::int64_t>("prompt_offsets") = {0, 333, 1000};
  file.datasets["prompt_tokens"].properties = [](hid_t properties) {
    H5Pset_shuffle(properties);
    H5Pset_deflate(properties, 6);
  };
  file.Write(path_);
  Corpus corpus(path_);
  EXPECT_EQ(corpus.Read(0).prompt_tokens, std::vector<Token>(prompts.begin(), prompts.begin() + 333));
  EXPECT_EQ(corpus.Read(1).prompt_tokens, std::vector<Token>(prompts.begin() + 333, prompts.end()));
}

// Prompts to generate from have no responses.
TEST_F(CorpusTest, GroupsMayHaveNoResponses) {
  CorpusFile file;
  file.Ints<std::int32_t>("response_tokens").clear();
  file.Ints<std::uint8_t>("response_masks").clear();
  file.Ints<double>("response_weights").clear();
  file.Ints<std::int64_t>("response_offsets") = {0};
  file.Ints<std::int64_t>("group_responses") = {0, 0, 0};
  file.Write(path_);
  Corpus corpus(path_);
  EXPECT_TRUE(corpus.Read(1).responses.empty());
  EXPECT_EQ(corpus.LongestSequence().tokens, 4);
}

TEST_F(CorpusTest, FingerprintFollowsTheFile) {
  CorpusFile().Write(path_);
  const Corpus corpus(path_);
  const std::string before = corpus.Fingerprint();
  EXPECT_EQ(corpus.Fingerprint(), before);
  fs::last_write_time(path_, fs::last_write_time(path_) + std::chrono::seconds(1));
  EXPECT_NE(corpus.Fingerprint(), before);
  fs::remove(path_);
  EXPECT_THROW(corpus.Fingerprint(), MissingInput);
}

TEST_F(CorpusTest, MissingFilesAreMissingInput) {
  EXPECT_THROW(Corpus{path_}, MissingInput);
  EXPECT_THROW(Corpus{folder_}, MissingInput);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);  // opening it would wait for a writer for ever
  EXPECT_THROW(Corpus{path_}, MissingInput);
}

TEST_F(CorpusTest, ForeignAndBrokenFilesAreRefused) {
  CorpusFile().Write(path_);
  const std::string good = Bytes(path_);
  std::string noise(10000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i * i * 31 + i);
  for (const std::string& bytes : {std::string(), std::string("{\"format\": 1}"), noise}) {
    WriteBytes(path_, bytes);
    EXPECT_NE(Refusal(path_).find("not an HDF5 file"), std::string::npos) << Refusal(path_);
  }
  for (std::size_t size = 0; size < good.size(); size += 97) {
    WriteBytes(path_, good.substr(0, size));
    EXPECT_NE(Refusal(path_), "") << "cut to " << size << " bytes of " << good.size();
  }
}

TEST_F(CorpusTest, SidecarMustAgree) {
  CorpusFile().Write(path_);
  const fs::path sidecar = path_.string() + ".sha256";
  const std::string hash = Sha256OfFile(path_);
  WriteBytes(sidecar, hash + "  corpus.h5\n");
  EXPECT_EQ(Corpus(path_).Info().sha256, hash);

  WriteBytes(sidecar, std::string(64, '0') + "  corpus.h5\n");
  EXPECT_NE(Refusal(path_).find(hash), std::string::npos) << Refusal(path_);
  EXPECT_EQ(Corpus(path_, {.verify_sidecar = false}).Info().sha256, std::string(64, '0'));

  for (const std::string& bytes : {std::string(), hash, hash.substr(1) + "  corpus.h5\n", "G" + hash}) {
    WriteBytes(sidecar, bytes);
    EXPECT_NE(Refusal(path_).find("corpus.h5.sha256"), std::string::npos) << bytes;
  }
}

TEST_F(CorpusTest, AFileBeingWrittenIsRefused) {
  CorpusFile().Write(path_);
  const int descriptor = open(path_.c_str(), O_RDWR);
  ASSERT_EQ(flock(descriptor, LOCK_EX | LOCK_NB), 0);  // what the HDF5 library of another writer does
  EXPECT_NE(Refusal(path_).find("open for writing"), std::string::npos) << Refusal(path_);
  close(descriptor);
  EXPECT_EQ(Refusal(path_), "");
}

// What gtest prints for a case is its name.
struct Hostile {
  const char* name;
  std::function<void(CorpusFile&)> change;
  std::vector<std::string> message;  // what the one line must contain

  friend void PrintTo(const Hostile& hostile, std::ostream* stream) { *stream << hostile.name; }
};

// An attribute without a value.
hid_t CreateAttribute(hid_t file, const char* name, hid_t type, hid_t space) {
  return H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
}

std::vector<Hostile> HostileFiles() {
  using I32 = std::int32_t;
  using I64 = std::int64_t;
  using U8 = std::uint8_t;
  std::vector<Hostile> cases = {
      // Attributes.
      {"other_format", [](CorpusFile& f) { f.attributes["format"] = "keras"; }, {"not a corpus"}},
      {"no_format", [](CorpusFile& f) { f.attributes.erase("format"); }, {"not a corpus"}},
      {"other_version",
       [](CorpusFile& f) { f.attributes["format_version"] = I64{2}; },
       {"'format_version' is 2", "reads 1"}},
      {"not_complete",
       [](CorpusFile& f) { f.attributes.erase("complete"); },
       {"'complete'", "did not finish"}},
      {"complete_is_0", [](CorpusFile& f) { f.attributes["complete"] = I64{0}; }, {"'complete'"}},
      {"vocabulary_of_0", [](CorpusFile& f) { f.attributes["vocab_size"] = I64{0}; }, {"'vocab_size' is 0"}},
      {"vocabulary_too_large",
       [](CorpusFile& f) { f.attributes["vocab_size"] = I64{1} << 40; },
       {"'vocab_size' is 1099511627776", "16777216"}},
      {"possibilities_negative",
       [](CorpusFile& f) { f.attributes["possibilities"] = I64{-1}; },
       {"'possibilities' is -1"}},
      {"possibilities_do_not_fit",
       [](CorpusFile& f) { f.attributes["possibilities"] = I64{3}; },
       {"'tail_offsets' has 7 elements", "9 are needed"}},
      {"unknown_source",
       [](CorpusFile& f) { f.attributes["source_format"] = "a\nb"; },
       {"'source_format' is 'a?b'", "dialogue"}},
      {"short_hash",
       [](CorpusFile& f) { f.attributes["tokenizer_sha256"] = "ab"; },
       {"'tokenizer_sha256' is 'ab'"}},
      {"other_masks", [](CorpusFile& f) { f.attributes["mask_modes"] = "all_first"; }, {"'mask_modes'"}},
      {"no_tokenizer",
       [](CorpusFile& f) { f.attributes.erase("tokenizer_name"); },
       {"'tokenizer_name' is missing"}},
      {"attribute_is_a_string",
       [](CorpusFile& f) { f.attributes["vocab_size"] = "10"; },
       {"'vocab_size' is a fixed-length string", "int64"}},
      {"attribute_is_an_integer",
       [](CorpusFile& f) { f.attributes["template_name"] = I64{1}; },
       {"'template_name' is little-endian int64", "fixed-length string"}},
      {"attribute_is_big_endian",
       [](CorpusFile& f) {
         f.attributes["vocab_size"] = [](hid_t file) {
           const hid_t space = H5Screate(H5S_SCALAR);
           H5Aclose(CreateAttribute(file, "vocab_size", H5T_STD_I64BE, space));
           H5Sclose(space);
         };
       },
       {"'vocab_size' is big-endian int64"}},
      {"attribute_is_an_array",
       [](CorpusFile& f) {
         f.attributes["vocab_size"] = [](hid_t file) {
           const hsize_t size = 1000;
           const hid_t space = H5Screate_simple(1, &size, nullptr);
           H5Aclose(CreateAttribute(file, "vocab_size", H5T_STD_I64LE, space));
           H5Sclose(space);
         };
       },
       {"'vocab_size' is an array"}},
      {"attribute_is_variable_length",
       [](CorpusFile& f) {
         f.attributes["template_name"] = [](hid_t file) {
           const hid_t space = H5Screate(H5S_SCALAR);
           const hid_t type = H5Tcopy(H5T_C_S1);
           H5Tset_size(type, H5T_VARIABLE);
           H5Aclose(CreateAttribute(file, "template_name", type, space));
           H5Tclose(type);
           H5Sclose(space);
         };
       },
       {"'template_name' is a variable-length string"}},
      {"attribute_is_huge",
       [](CorpusFile& f) { f.attributes["template_name"] = std::string(100000, 'x'); },
       {"'template_name' has 100000 bytes", "65536"}},

      // Storage.
      {"old_superblock", [](CorpusFile& f) { f.latest = false; }, {"superblock version 0", "v110"}},
      {"no_checksums",
       [](CorpusFile& f) { f.datasets["tail_tokens"].fletcher32 = false; },
       {"'tail_tokens' has no checksums", "fletcher32"}},
      {"contiguous",
       [](CorpusFile& f) { f.datasets["tail_tokens"].chunk = 0; },
       {"'tail_tokens' has the layout 'contiguous'", "'chunked'"}},
      {"compact",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].chunk = 0;
         f.datasets["tail_tokens"].properties = [](hid_t p) { H5Pset_layout(p, H5D_COMPACT); };
       },
       {"'tail_tokens' has the layout 'compact'"}},
      {"virtual",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].chunk = 0;
         f.datasets["tail_tokens"].shape = {11};
         f.datasets["tail_tokens"].properties = [](hid_t p) {
           const hsize_t size = 11;
           const hid_t space = H5Screate_simple(1, &size, nullptr);
           H5Pset_virtual(p, space, "/etc/passwd", "x", space);
           H5Sclose(space);
         };
       },
       {"'tail_tokens' has the layout 'virtual'"}},
      {"external",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].chunk = 0;
         // One element more than there are values: nothing is written, the named file least of all.
         f.datasets["tail_tokens"].shape = {11};
         f.datasets["tail_tokens"].properties = [](hid_t p) { H5Pset_external(p, "/etc/passwd", 0, 44); };
       },
       {"'tail_tokens' is stored in another file"}},
      {"unknown_filter",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].properties = [](hid_t p) {
           H5Pset_filter(p, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr);
         };
       },
       {"'tail_tokens' uses filter 32015", "deflate"}},
      {"lossy_filter",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].properties = [](hid_t p) { H5Pset_scaleoffset(p, H5Z_SO_INT, 2); };
       },
       {"'tail_tokens' uses filter 6"}},
      {"chunk_too_large",
       [](CorpusFile& f) { f.datasets["tail_tokens"].chunk = (hsize_t{64} << 20) / 4 + 1; },
       {"'tail_tokens' has chunks of 16777217 elements", "16777216 (64 MiB)"}},
      {"shape_bomb",
       [](CorpusFile& f) { f.datasets["prompt_tokens"].shape = {hsize_t{1} << 60}; },
       {"'prompt_tokens' declares 1152921504606846976 elements", "68719476736"}},
      {"shape_bomb_in_range",
       [](CorpusFile& f) { f.datasets["prompt_tokens"].shape = {hsize_t{1} << 30}; },
       {"'prompt_tokens' declares 1073741824 elements but stores 0 bytes", "1000 times"}},
      {"deflate_bomb",
       [](CorpusFile& f) {
         auto& dataset = f.datasets["prompt_tokens"];
         dataset.values = std::vector<I32>(hsize_t{1} << 24, 0);
         dataset.chunk = hsize_t{1} << 22;
         dataset.properties = [](hid_t p) { H5Pset_deflate(p, 9); };
         f.Ints<I64>("prompt_offsets") = {0, 2, 1 << 24};
       },
       {"prompt_tokens", "at most"}},
      {"unwritten_chunk",
       [](CorpusFile& f) {
         f.datasets["response_tokens"].custom = [](hid_t file) {
           const hsize_t size = 9;
           const hsize_t chunk = 3;
           const hsize_t unlimited = H5S_UNLIMITED;
           const hid_t space = H5Screate_simple(1, &size, &unlimited);
           const hid_t p = H5Pcreate(H5P_DATASET_CREATE);
           H5Pset_chunk(p, 1, &chunk);
           H5Pset_fletcher32(p);
           const hid_t id =
               H5Dcreate2(file, "response_tokens", H5T_STD_I32LE, space, H5P_DEFAULT, p, H5P_DEFAULT);
           const std::vector<I32> values = {7, 8, 9};
           H5Sselect_hyperslab(space, H5S_SELECT_SET, &chunk, nullptr, &chunk, nullptr);
           const hid_t memory = H5Screate_simple(1, &chunk, nullptr);
           H5Dwrite(id, H5T_NATIVE_INT32, memory, space, H5P_DEFAULT, values.data());
           H5Sclose(memory);
           H5Dclose(id);
           H5Pclose(p);
           H5Sclose(space);
         };
       },
       {"'response_tokens' stores 1 of 3 chunks"}},

      // Links.
      {"missing", [](CorpusFile& f) { f.datasets.erase("tail_offsets"); }, {"'tail_offsets' is missing"}},
      {"soft_link",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].custom = [](hid_t file) {
           H5Lcreate_soft("/prompt_tokens", file, "tail_tokens", H5P_DEFAULT, H5P_DEFAULT);
         };
       },
       {"'tail_tokens' is a soft or external link"}},
      {"external_link",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].custom = [](hid_t file) {
           H5Lcreate_external("other.h5", "/x", file, "tail_tokens", H5P_DEFAULT, H5P_DEFAULT);
         };
       },
       {"'tail_tokens' is a soft or external link"}},
      {"group",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].custom = [](hid_t file) {
           H5Gclose(H5Gcreate2(file, "tail_tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
         };
       },
       {"'tail_tokens' is a group"}},

      // Types and shapes.
      {"two_dimensions",
       [](CorpusFile& f) {
         f.datasets["tail_tokens"].shape = {2, 5};
       },
       {"'tail_tokens' has 2 dimensions, 1 is needed"}},
      {"unsigned",
       [](CorpusFile& f) { f.datasets["tail_tokens"].type = H5T_STD_U32LE; },
       {"'tail_tokens' is of type little-endian uint32", "little-endian int32"}},
      {"big_endian",
       [](CorpusFile& f) { f.datasets["tail_tokens"].type = H5T_STD_I32BE; },
       {"'tail_tokens' is of type big-endian int32"}},
      {"too_wide",
       [](CorpusFile& f) { f.datasets["tail_tokens"].type = H5T_STD_I64LE; },
       {"'tail_tokens' is of type little-endian int64"}},
      {"floating",
       [](CorpusFile& f) { f.datasets["tail_tokens"].type = H5T_IEEE_F32LE; },
       {"'tail_tokens' is of type little-endian float32"}},
      {"signed_masks",
       [](CorpusFile& f) { f.datasets["response_masks"].type = H5T_STD_I8LE; },
       {"'response_masks' is of type little-endian int8", "uint8"}},
      {"single_precision_weights",
       [](CorpusFile& f) { f.datasets["response_weights"].type = H5T_IEEE_F32LE; },
       {"'response_weights' is of type little-endian float32", "float64"}},
      {"masks_too_short",
       [](CorpusFile& f) { f.Ints<U8>("response_masks").pop_back(); },
       {"'response_masks' has 8 elements", "(9)"}},

      // Offsets.
      {"no_groups",
       [](CorpusFile& f) {
         f.Ints<I64>("prompt_offsets") = {0};
         f.Ints<I32>("prompt_tokens").clear();
       },
       {"has no groups"}},
      {"no_offsets",
       [](CorpusFile& f) { f.Ints<I64>("prompt_offsets").clear(); },
       {"'prompt_offsets' has 0 elements", "at least 1"}},
      {"offsets_start_late",
       [](CorpusFile& f) { f.Ints<I64>("prompt_offsets")[0] = 1; },
       {"'prompt_offsets' starts at 1"}},
      {"offsets_negative",
       [](CorpusFile& f) { f.Ints<I64>("prompt_offsets")[1] = -5; },
       {"'prompt_offsets' decreases from 0 to -5 at element 1"}},
      {"offsets_decrease",
       [](CorpusFile& f) { f.Ints<I64>("response_offsets")[1] = 6; },
       {"'response_offsets' decreases from 6 to 5 at element 2"}},
      {"offsets_end_early",
       [](CorpusFile& f) { f.Ints<I64>("prompt_offsets")[2] = 2; },
       {"'prompt_offsets' ends at 2", "'prompt_tokens' has 3"}},
      {"offsets_end_late",
       [](CorpusFile& f) { f.Ints<I64>("id_offsets")[2] = std::numeric_limits<I64>::max(); },
       {"'id_offsets' ends at 9223372036854775807"}},
      {"offsets_overshoot_inside",
       [](CorpusFile& f) { f.Ints<I64>("tail_offsets")[3] = 1 << 30; },
       {"'tail_offsets' decreases from 1073741824 to 6"}},
      {"too_few_ids",
       [](CorpusFile& f) {
         f.Ints<I64>("id_offsets") = {0, 4};
       },
       {"'id_offsets' has 2 elements, 3 are needed"}},
      {"vocabulary_table_too_short",
       [](CorpusFile& f) { f.Ints<I64>("vocab_offsets").pop_back(); },
       {"'vocab_offsets' has 10 elements, 11 are needed"}},

      // Values.
      {"token_too_large",
       [](CorpusFile& f) { f.Ints<I32>("response_tokens")[6] = 10; },
       {"'response_tokens': token id 10 at element 6 (group 1)", "0 to 9"}},
      {"token_negative",
       [](CorpusFile& f) { f.Ints<I32>("prompt_tokens")[1] = -1; },
       {"'prompt_tokens': token id -1 at element 1 (group 0)"}},
      {"tail_token_too_large",
       [](CorpusFile& f) { f.Ints<I32>("tail_tokens")[9] = 2147483647; },
       {"'tail_tokens': token id 2147483647 at element 9"}},
      {"unknown_mask_bit",
       [](CorpusFile& f) { f.Ints<U8>("response_masks")[4] = 8; },
       {"'response_masks' is 8 at element 4", "0 to 7"}},
      {"weight_not_a_number",
       [](CorpusFile& f) { f.Ints<double>("response_weights")[3] = std::nan(""); },
       {"'response_weights' is nan at element 3"}},
      {"weight_infinite",
       [](CorpusFile& f) { f.Ints<double>("response_weights")[0] = std::numeric_limits<double>::infinity(); },
       {"'response_weights' is inf at element 0"}},
      {"weight_negative",
       [](CorpusFile& f) { f.Ints<double>("response_weights")[1] = -0.5; },
       {"'response_weights' is -0.5", "at element 1", ">= 0"}},
  };
  return cases;
}

class HostileCorpusTest : public CorpusTest, public testing::WithParamInterface<Hostile> {};

TEST_P(HostileCorpusTest, IsRefusedInOneLine) {
  CorpusFile file;
  GetParam().change(file);
  file.Write(path_);
  const std::string message = Refusal(path_);
  ASSERT_NE(message, "") << "the file was accepted";
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_NE(message.find(path_.string()), std::string::npos) << message;
  for (const std::string& part : GetParam().message) {
    EXPECT_NE(message.find(part), std::string::npos) << "no \"" << part << "\" in: " << message;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, HostileCorpusTest, testing::ValuesIn(HostileFiles()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(CorpusTest, LimitOfElementsHolds) {
  CorpusFile().Write(path_);
  EXPECT_EQ(Refusal(path_, {.max_elements = 10}), "");
  EXPECT_NE(Refusal(path_, {.max_elements = 9}).find("declares 10 elements, at most 9"), std::string::npos);
}

// A corpus of some size, every byte of whose first 4 KiB, and every 13th after, is inverted in turn. A
// byte that is not used may change freely; then the content must be the same.
TEST_F(CorpusTest, NoFlippedByteGoesUnnoticed) {
  CorpusFile file;
  auto& prompts = file.Ints<std::int32_t>("prompt_tokens");
  for (int i = 0; i < 997; ++i) prompts.push_back(i % 10);
  file.Ints<std::int64_t>("prompt_offsets") = {0, 400, 1000};
  file.Write(path_);
  const std::string content = ContentOf(path_);
  const auto size = static_cast<std::size_t>(fs::file_size(path_));

  const fs::path flipped = folder_ / "flipped.h5";
  fs::copy_file(path_, flipped);
  std::fstream stream(flipped, std::ios::binary | std::ios::in | std::ios::out);
  const auto invert = [&](std::size_t at) {
    stream.seekg(static_cast<std::streamoff>(at));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(static_cast<char>(~byte));
    stream.flush();
  };
  std::size_t refused = 0;
  for (std::size_t at = 0; at < size; at += at < 4096 ? 1 : 13) {
    invert(at);
    try {
      EXPECT_EQ(ContentOf(flipped), content) << "byte " << at << " changed the content silently";
    } catch (const DataError&) {
      ++refused;
    }
    invert(at);
  }
  EXPECT_GT(refused, 1000U);
  EXPECT_EQ(ContentOf(flipped), content);
}

TEST_F(CorpusTest, ReadsWhatNumbersStandFor) {
  CorpusFile file;
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().alignment.possibilities, 0);
  EXPECT_TRUE(Corpus(path_).Read(0).responses[0].affinity.empty());

  file.AlignByKinds();
  file.Write(path_);
  Corpus corpus(path_);
  EXPECT_EQ(corpus.Info().alignment.possibilities, 2);
  EXPECT_EQ(corpus.Info().alignment.source, "kinds");
  EXPECT_EQ(corpus.Info().alignment.kinds, (std::vector<std::string>{"ask", "tell"}));
  EXPECT_EQ(corpus.Read(0).responses[0].affinity, (std::vector<float>{0, 1}));
  EXPECT_EQ(corpus.Read(0).responses[1].affinity, (std::vector<float>{1, 0}));
  EXPECT_EQ(corpus.Read(1).responses[1].affinity, (std::vector<float>{0, 1}));

  CorpusFile clusters;
  clusters.AlignByCentres();
  clusters.Ints<float>("response_affinities") = {0.5F, -0.25F, 1, -1, 0, 0, 0, 0};
  clusters.Write(folder_ / "clusters.h5");
  Corpus clustered(folder_ / "clusters.h5");
  EXPECT_EQ(clustered.Info().alignment.source, "kmeans");
  EXPECT_EQ(clustered.Info().alignment.encoder, "little-encoder");
  EXPECT_EQ(clustered.Info().alignment.encoder_sha256, std::string(64, 'b'));
  EXPECT_EQ(clustered.Info().alignment.dimensions, 3);
  EXPECT_EQ(clustered.Read(0).responses[0].affinity, (std::vector<float>{0.5F, -0.25F}));
}

// A corpus may give a meaning to fewer numbers than it has.
TEST_F(CorpusTest, NumbersMayHaveNoMeaning) {
  CorpusFile file;
  file.AlignByKinds();
  file.attributes["possibilities"] = std::int64_t{3};
  file.Ints<std::int32_t>("tail_tokens") = {3, 4, 5, 6, 3, 4, 5, 6};
  file.Ints<std::int64_t>("tail_offsets") = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  file.Write(path_);
  EXPECT_EQ(Refusal(path_), "");
}

TEST_F(CorpusTest, RefusesAnAlignmentThatCannotBe) {
  const auto expect = [&](const std::string& words, const std::function<void(CorpusFile&)>& change) {
    for (const bool kinds : {true, false}) {
      CorpusFile file;
      kinds ? file.AlignByKinds() : file.AlignByCentres();
      change(file);
      file.Write(path_);
      const std::string refusal = Refusal(path_);
      if (refusal.find(words) != std::string::npos && refusal.find('\n') == std::string::npos) return;
      if (!kinds) ADD_FAILURE() << "wanted: " << words << "\n found: " << refusal;
    }
  };
  using Kinds = std::vector<std::uint8_t>;
  using Floats = std::vector<float>;
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  expect("'alignment_possibilities' is 3, 2 to the corpus's 'possibilities' (2)",
         [](auto& file) { file.attributes["alignment_possibilities"] = std::int64_t{3}; });
  expect("'alignment_possibilities' is 1",
         [](auto& file) { file.attributes["alignment_possibilities"] = std::int64_t{1}; });
  expect("'alignment_source' is 'guess'", [](auto& file) { file.attributes["alignment_source"] = "guess"; });
  expect("'alignment_source' is missing", [](auto& file) { file.attributes.erase("alignment_source"); });
  expect("'response_affinities' is missing", [](auto& file) { file.datasets.erase("response_affinities"); });
  expect("'response_affinities' has 7 elements, 2 for each of 4 responses",
         [](auto& file) { file.template Ints<float>("response_affinities").pop_back(); });
  expect("'response_affinities' is 1.5",
         [](auto& file) { file.template Ints<float>("response_affinities")[5] = 1.5F; });
  expect("element 5 (response 2)",
         [nan](auto& file) { file.template Ints<float>("response_affinities")[5] = nan; });
  expect("is of type little-endian float64, little-endian float32 is needed",
         [](auto& file) { file.datasets["response_affinities"].values = std::vector<double>(8, 0.0); });
  expect("'alignment_kinds' is missing", [](auto& file) { file.datasets.erase("alignment_kinds"); });
  expect("'alignment_kinds' has 1 ended lines, one for each of 2 numbers", [](auto& file) {
    file.datasets["alignment_kinds"].values = Kinds{'a', 's', 'k', '\n', 't'};
  });
  expect("'alignment_kinds' has 3 ended lines", [](auto& file) {
    file.datasets["alignment_kinds"].values = Kinds{'\n', '\n', '\n'};
  });
  expect("'alignment_centres' is missing", [](auto& file) { file.datasets.erase("alignment_centres"); });
  expect("'alignment_centres' has 5 elements",
         [](auto& file) { file.datasets["alignment_centres"].values = Floats(5, 0.5F); });
  expect("'alignment_centres' is nan at element 1, finite numbers are needed", [nan](auto& file) {
    file.datasets["alignment_centres"].values = Floats{1, nan};
  });
  expect("'alignment_encoder_sha256' is 'none', 64 lower-case hex digits",
         [](auto& file) { file.attributes["alignment_encoder_sha256"] = "none"; });
}

// Writes attribute "end_token_ids".
CorpusFile::Attribute EndTokens(std::vector<std::int64_t> ids) {
  return [ids](hid_t file) {
    const hsize_t size = ids.size();
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t attribute = H5Acreate2(file, "end_token_ids", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, ids.data());
    H5Aclose(attribute);
    H5Sclose(space);
  };
}

TEST_F(CorpusTest, NamesItsEndTokensTheTrainedOneFirst) {
  CorpusFile file;
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().end_tokens, std::vector<std::int64_t>{});
  file.attributes["eos_token_id"] = std::int64_t{9};  // all that older corpora say
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().end_tokens, std::vector<std::int64_t>{9});
  file.attributes["end_token_ids"] = EndTokens({8, 9});
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().end_tokens, (std::vector<std::int64_t>{8, 9}));
  file.attributes["end_token_ids"] = EndTokens({10});
  file.Write(path_);
  EXPECT_NE(Refusal(path_).find("'end_token_ids' holds id 10, 0 to 9 are allowed"), std::string::npos)
      << Refusal(path_);
  file.attributes["end_token_ids"] = EndTokens(std::vector<std::int64_t>(5000, 1));
  file.Write(path_);
  EXPECT_NE(Refusal(path_).find("5000 elements"), std::string::npos) << Refusal(path_);
}

TEST_F(CorpusTest, TheLargestTokenThatItUsesBoundsAllOthers) {
  CorpusFile file;
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().largest_token, 9);
  file.attributes["largest_token_id"] = std::int64_t{9};
  file.Write(path_);
  EXPECT_NO_THROW(Corpus(path_, {.scan_tokens = true}));
  file.attributes["largest_token_id"] = std::int64_t{8};  // 9 stands in the responses
  file.Write(path_);
  EXPECT_EQ(Corpus(path_).Info().largest_token, 8);
  EXPECT_THROW(Corpus(path_, {.scan_tokens = true}), DataError);
  EXPECT_THROW(Corpus(path_).Read(0), DataError);
}

TEST_F(CorpusTest, IdsBeyondTheTokenizerStandForNothing) {
  CorpusFile().Write(path_);
  const Corpus corpus(path_);
  EXPECT_EQ(corpus.Decode({1, 10, 500, 2}), "bc");
  EXPECT_EQ(corpus.IdOf("c"), 2);
  EXPECT_EQ(corpus.IdOf("no token"), -1);
  EXPECT_EQ(corpus.IdOf(""), -1);
}

}  // namespace
}  // namespace plural::data
