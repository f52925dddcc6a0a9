// SHA-256 of files and bytes, as lower-case hex.
//
// Owns: hashing. Does not own: what a hash is compared with. Thread rule: one Sha256 object in one
// thread; the functions are pure.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace plural::data {

// An incremental hash: Update in any number of pieces, then Hex once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Update(const void* bytes, std::size_t size);
  // 64 hex digits. Ends the hash: neither Update nor Hex may follow.
  std::string Hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Reads the file once, in pieces of 1 MiB. Errors: MissingInput when it cannot be opened or read.
std::string Sha256OfFile(const std::filesystem::path& path);

std::string Sha256OfBytes(std::string_view bytes);

}  // namespace plural::data
