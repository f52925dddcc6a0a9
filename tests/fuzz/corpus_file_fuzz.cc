// The corpus reader on any bytes. Checksums stop most of them early; corpus_values_fuzz.cc goes behind those.
#include <cstdint>

#include "tests/fuzz/corpus_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const plural::fuzz::ScratchFolder folder;
  folder.Write("corpus.h5", {reinterpret_cast<const char*>(data), size});
  plural::fuzz::ReadCorpus(folder.Path() / "corpus.h5");
  return 0;
}
