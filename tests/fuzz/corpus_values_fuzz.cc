// The corpus reader on whole HDF5 files with any content. An input is a list of changes to a small right
// corpus: values, sizes, types, storage and attributes.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <variant>

#include "tests/fuzz/corpus_check.h"
#include "tests/unit/support/corpus_file.h"

namespace plural::fuzz {
namespace {

using data::CorpusFile;
constexpr std::size_t kMaxElements = 4096;
constexpr hsize_t kMaxExtent = hsize_t{1} << 19;  // of one dimension of three

void ChangeValues(FuzzedDataProvider& input, CorpusFile::Values& values) {
  std::visit(
      [&](auto& list) {
        using T = typename std::decay_t<decltype(list)>::value_type;
        const auto any = [&] {
          if constexpr (std::is_floating_point_v<T>) {
            // From bytes, so that NaN and infinity are among them.
            const std::vector<std::uint8_t> bytes = input.ConsumeBytes<std::uint8_t>(sizeof(T));
            T value = 0;
            std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::uint8_t*>(&value));
            return value;
          } else {
            return input.ConsumeBool() ? input.ConsumeIntegral<T>()
                                       : static_cast<T>(input.ConsumeIntegralInRange<int>(0, 12));
          }
        };
        const std::size_t at =
            list.empty() ? 0 : input.ConsumeIntegralInRange<std::size_t>(0, list.size() - 1);
        switch (input.ConsumeIntegralInRange<int>(0, 3)) {
          case 0:
            if (!list.empty()) list[at] = any();
            break;
          case 1:
            list.insert(list.begin() + static_cast<std::ptrdiff_t>(at), any());
            break;
          case 2:
            if (!list.empty()) list.erase(list.begin() + static_cast<std::ptrdiff_t>(at));
            break;
          default:
            list.resize(input.ConsumeIntegralInRange<std::size_t>(0, kMaxElements), any());
        }
      },
      values);
}

void ChangeStorage(FuzzedDataProvider& input, CorpusFile::Dataset& dataset) {
  const hid_t types[] = {H5T_STD_I32LE,  H5T_STD_I64LE, H5T_STD_U8LE,     H5T_IEEE_F64LE,
                         H5T_IEEE_F32LE, H5T_STD_I16BE, H5T_NATIVE_UINT64};
  switch (input.ConsumeIntegralInRange<int>(0, 4)) {
    case 0:
      dataset.type = types[input.ConsumeIntegralInRange<std::size_t>(0, std::size(types) - 1)];
      break;
    case 1:
      dataset.chunk = input.ConsumeIntegralInRange<hsize_t>(0, 2 * kMaxElements);
      break;
    case 2:
      dataset.fletcher32 = false;
      break;
    case 3:
      dataset.shape.assign(input.ConsumeIntegralInRange<std::size_t>(1, 3),
                           input.ConsumeIntegralInRange<hsize_t>(0, kMaxExtent));
      break;
    default:
      dataset.properties = [level = input.ConsumeIntegralInRange<unsigned>(0, 9)](hid_t properties) {
        H5Pset_shuffle(properties);
        H5Pset_deflate(properties, level);
      };
  }
  // What the library would not write: filters without chunks, chunks above 4 GiB.
  if (dataset.chunk == 0) dataset.properties = {};
  if (dataset.shape.size() > 1) dataset.chunk = std::min<hsize_t>(dataset.chunk, 64);
}

template <class Map>
typename Map::iterator Pick(FuzzedDataProvider& input, Map& map) {
  const auto last = static_cast<std::ptrdiff_t>(map.size()) - 1;
  return std::next(map.begin(), input.ConsumeIntegralInRange<std::ptrdiff_t>(0, last));
}

void ChangeAttribute(FuzzedDataProvider& input, CorpusFile& file) {
  const auto attribute = Pick(input, file.attributes);
  switch (input.ConsumeIntegralInRange<int>(0, 3)) {
    case 0:
      attribute->second = input.ConsumeIntegral<std::int64_t>();
      break;
    case 1:
      attribute->second = input.ConsumeIntegralInRange<std::int64_t>(-1, 16);
      break;
    case 2:
      attribute->second = input.ConsumeRandomLengthString(200);
      break;
    default:
      if (file.attributes.size() > 1) file.attributes.erase(attribute);
  }
}

}  // namespace
}  // namespace plural::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace plural::fuzz;
  static const ScratchFolder folder;
  FuzzedDataProvider input(data, size);
  CorpusFile file;
  const int alignment = input.ConsumeIntegralInRange<int>(0, 2);
  if (alignment == 1) file.AlignByKinds();
  if (alignment == 2) file.AlignByCentres();
  while (input.remaining_bytes() > 0) {
    const int what = input.ConsumeIntegralInRange<int>(0, 7);
    if (what == 0) {
      ChangeAttribute(input, file);
    } else if (what == 1 && file.datasets.size() > 1) {
      file.datasets.erase(Pick(input, file.datasets));
    } else if (what == 2) {
      ChangeStorage(input, Pick(input, file.datasets)->second);
    } else {
      ChangeValues(input, Pick(input, file.datasets)->second.values);
    }
  }
  file.Write(folder.Path() / "corpus.h5");
  ReadCorpus(folder.Path() / "corpus.h5");
  return 0;
}
