// Writes corpora with the HDF5 C API, right ones and wrong ones, for tests.
//
// Owns: a corpus in memory that a test changes before it is written. Does not use the reader under test.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace plural::data {

class CorpusFile {
 public:
  using Values = std::variant<std::vector<std::int32_t>, std::vector<std::int64_t>, std::vector<std::uint8_t>,
                              std::vector<double>, std::vector<float>>;
  struct Dataset {
    Values values;
    hid_t type = H5I_INVALID_HID;  // on disk; the usual one of `values` when invalid
    hsize_t chunk = 64;            // elements; 0: contiguous
    bool fletcher32 = true;
    std::vector<hsize_t> shape = {};              // [size of values] when empty
    std::function<void(hid_t)> properties = {};   // changes the creation property list
    std::function<void(hid_t file)> custom = {};  // writes the dataset in place of all the above
  };
  using Attribute = std::variant<std::int64_t, std::string, std::function<void(hid_t file)>>;

  // Two groups, M = 2, vocabulary of 10: token i stands for the byte 'a' + i.
  //   "g0": prompt 1 2, tails (3) (4 5) (4 6), responses (7 8 9) and (7 9), weights 1 and 0.5
  //   "g1": prompt 2,   tails (3) (4 5) (4 6), responses (8 9) and (5 9), weights 1 and 1
  CorpusFile();

  // Numbers 1 and 2 stand for kinds "ask" and "tell", and which of them each response is.
  void AlignByKinds();
  // The same affinities, as from clusters with centres of three dimensions.
  void AlignByCentres();

  void Write(const std::filesystem::path& path) const;

  template <class T>
  std::vector<T>& Ints(const std::string& name) {
    return std::get<std::vector<T>>(datasets.at(name).values);
  }

  std::map<std::string, Attribute> attributes;
  std::map<std::string, Dataset> datasets;
  bool latest = true;  // libver: checksummed metadata
};

inline CorpusFile::CorpusFile() {
  H5dont_atexit();  // as the reader does; it must be the process's first call
  attributes = {
      {"format", "plural-corpus"},
      {"format_version", std::int64_t{1}},
      {"vocab_size", std::int64_t{10}},
      {"possibilities", std::int64_t{2}},
      {"source_format", "dialogue"},
      {"tokenizer_name", "tokenizer.json"},
      {"tokenizer_sha256", std::string(64, 'a')},
      {"template_name", "plain"},
      {"mask_modes", "content_first,all_first,repo_compat"},
      {"complete", std::int64_t{1}},
  };
  using Int32 = std::vector<std::int32_t>;
  using Int64 = std::vector<std::int64_t>;
  using Bytes = std::vector<std::uint8_t>;
  const auto add = [&](const char* name, Values values) { datasets[name].values = std::move(values); };
  add("prompt_tokens", Int32{1, 2, 2});
  add("prompt_offsets", Int64{0, 2, 3});
  add("tail_tokens", Int32{3, 4, 5, 4, 6, 3, 4, 5, 4, 6});
  add("tail_offsets", Int64{0, 1, 3, 5, 6, 8, 10});
  add("response_tokens", Int32{7, 8, 9, 7, 9, 8, 9, 5, 9});
  add("response_masks", Bytes{7, 2, 0, 3, 0, 1, 0, 4, 0});
  add("response_offsets", Int64{0, 3, 5, 7, 9});
  add("response_weights", std::vector<double>{1.0, 0.5, 1.0, 1.0});
  add("group_responses", Int64{0, 2, 4});
  add("id_bytes", Bytes{'g', '0', 'g', '1'});
  add("id_offsets", Int64{0, 2, 4});
  add("vocab_bytes", Bytes{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'});
  add("vocab_offsets", Int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  add("template", Bytes{'{', '}'});
}

inline void CorpusFile::AlignByKinds() {
  attributes["alignment_possibilities"] = std::int64_t{2};
  attributes["alignment_source"] = "kinds";
  datasets["alignment_kinds"].values =
      std::vector<std::uint8_t>{'a', 's', 'k', '\n', 't', 'e', 'l', 'l', '\n'};
  datasets["response_affinities"].values = std::vector<float>{0, 1, 1, 0, 1, 0, 0, 1};
}

inline void CorpusFile::AlignByCentres() {
  AlignByKinds();
  attributes["alignment_source"] = "kmeans";
  attributes["alignment_encoder"] = "little-encoder";
  attributes["alignment_encoder_sha256"] = std::string(64, 'b');
  datasets.erase("alignment_kinds");
  datasets["alignment_centres"].values = std::vector<float>{1, 0, 0, 0, 0.6F, 0.8F};
}

namespace corpus_file_internal {

inline hid_t OnDisk(const CorpusFile::Values& values) {
  const hid_t types[] = {H5T_STD_I32LE, H5T_STD_I64LE, H5T_STD_U8LE, H5T_IEEE_F64LE, H5T_IEEE_F32LE};
  return types[values.index()];
}

inline hid_t InMemory(const CorpusFile::Values& values) {
  const hid_t types[] = {H5T_NATIVE_INT32, H5T_NATIVE_INT64, H5T_NATIVE_UINT8, H5T_NATIVE_DOUBLE,
                         H5T_NATIVE_FLOAT};
  return types[values.index()];
}

inline void WriteDataset(hid_t file, const std::string& name, const CorpusFile::Dataset& dataset) {
  const auto [data, size] = std::visit(
      [](const auto& values) { return std::pair<const void*, hsize_t>(values.data(), values.size()); },
      dataset.values);
  const std::vector<hsize_t> shape = dataset.shape.empty() ? std::vector<hsize_t>{size} : dataset.shape;
  const auto rank = static_cast<int>(shape.size());
  const std::vector<hsize_t> unlimited(shape.size(), H5S_UNLIMITED);
  const hid_t space = H5Screate_simple(rank, shape.data(), dataset.chunk > 0 ? unlimited.data() : nullptr);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  if (dataset.chunk > 0) {
    const std::vector<hsize_t> chunk(shape.size(), dataset.chunk);
    H5Pset_chunk(properties, rank, chunk.data());
    if (dataset.fletcher32) H5Pset_fletcher32(properties);
  }
  if (dataset.properties) dataset.properties(properties);
  const hid_t type = dataset.type >= 0 ? dataset.type : OnDisk(dataset.values);
  const hid_t id = H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(id, 0) << name;
  // A shape larger than the values stays unwritten: a shape bomb.
  hsize_t elements = 1;
  for (const hsize_t extent : shape) elements *= extent;
  if (elements == size && size > 0) {
    ASSERT_GE(H5Dwrite(id, InMemory(dataset.values), H5S_ALL, H5S_ALL, H5P_DEFAULT, data), 0) << name;
  }
  H5Dclose(id);
  H5Pclose(properties);
  H5Sclose(space);
}

inline void WriteAttribute(hid_t file, const std::string& name, const CorpusFile::Attribute& attribute) {
  if (const auto* custom = std::get_if<std::function<void(hid_t)>>(&attribute)) return (*custom)(file);
  const hid_t space = H5Screate(H5S_SCALAR);
  hid_t type = H5Tcopy(H5T_STD_I64LE);
  const void* data = std::get_if<std::int64_t>(&attribute);
  if (const auto* text = std::get_if<std::string>(&attribute)) {
    H5Tclose(type);
    type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, std::max<std::size_t>(1, text->size()));
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    data = text->c_str();
  }
  const hid_t id = H5Acreate2(file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(H5Awrite(id, type, data), 0) << name;
  H5Aclose(id);
  H5Tclose(type);
  H5Sclose(space);
}

}  // namespace corpus_file_internal

inline void CorpusFile::Write(const std::filesystem::path& path) const {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (latest) H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  ASSERT_GE(file, 0) << path;
  for (const auto& [name, dataset] : datasets) {
    if (dataset.custom) {
      dataset.custom(file);
    } else {
      corpus_file_internal::WriteDataset(file, name, dataset);
    }
  }
  for (const auto& [name, attribute] : attributes) {
    corpus_file_internal::WriteAttribute(file, name, attribute);
  }
  H5Fclose(file);
  H5Pclose(access);
}

}  // namespace plural::data
