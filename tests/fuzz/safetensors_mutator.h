// Changes a safetensors file so that the change reaches the parser: most changes of bytes would only make
// the size of the header wrong.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace plural::fuzz {

// `bytes` with one of the fuzzer's own changes, at most `max_bytes` long.
inline std::string Mutated(std::string_view bytes, std::size_t max_bytes) {
  std::string changed(bytes.substr(0, max_bytes));
  const std::size_t size = changed.size();
  changed.resize(max_bytes);
  auto* data = reinterpret_cast<std::uint8_t*>(changed.data());
  changed.resize(LLVMFuzzerMutate(data, size, max_bytes));
  return changed;
}

// One in eight times any byte changes; else the header does, and its size is made to fit.
inline std::string MutatedSafetensors(std::string_view file, std::size_t max_bytes, unsigned seed) {
  std::uint64_t header_size = 0;
  constexpr std::size_t kPrefix = sizeof header_size;
  if (file.size() < kPrefix || max_bytes < file.size() || seed % 8 == 0) return Mutated(file, max_bytes);
  std::memcpy(&header_size, file.data(), kPrefix);
  if (header_size > file.size() - kPrefix) return Mutated(file, max_bytes);
  const std::string_view rest = file.substr(kPrefix + header_size);
  const std::string header = Mutated(file.substr(kPrefix, header_size), max_bytes - kPrefix - rest.size());
  header_size = header.size();
  std::string changed(kPrefix, '\0');
  std::memcpy(changed.data(), &header_size, kPrefix);
  return changed.append(header).append(rest);
}

// The same in the fuzzer's buffer of `max_size` bytes: the body of LLVMFuzzerCustomMutator.
inline std::size_t MutateSafetensors(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                     unsigned seed) {
  const std::string changed = MutatedSafetensors({reinterpret_cast<char*>(data), size}, max_size, seed);
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}

}  // namespace plural::fuzz
