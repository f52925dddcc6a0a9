#include "data/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "data/error.h"

namespace plural::data {
namespace {

void Require(int openssl_result) {
  // Fails only without memory or without any SHA-256 provider in the installation.
  if (openssl_result != 1) throw std::runtime_error("OpenSSL refuses to compute SHA-256");
}

}  // namespace

struct Sha256::Impl {
  struct Free {
    void operator()(EVP_MD_CTX* owned) const { EVP_MD_CTX_free(owned); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context{EVP_MD_CTX_new()};
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  Require(impl_->context != nullptr);
  Require(EVP_DigestInit_ex(impl_->context.get(), EVP_sha256(), nullptr));
}
Sha256::~Sha256() = default;

void Sha256::Update(const void* bytes, std::size_t size) {
  Require(EVP_DigestUpdate(impl_->context.get(), bytes, size));
}

std::string Sha256::Hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  Require(EVP_DigestFinal_ex(impl_->context.get(), digest.data(), &size));
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * size);
  for (unsigned int i = 0; i < size; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

std::string Sha256OfFile(const std::filesystem::path& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw MissingInput(path.string() + ": cannot be opened for hashing: " + std::strerror(errno));

  Sha256 hash;
  std::vector<char> buffer(std::size_t{1} << 20);
  while (const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), file.get())) {
    hash.Update(buffer.data(), size);
  }
  if (std::ferror(file.get())) {  // a folder opens and fails here
    throw MissingInput(path.string() + ": cannot be read for hashing: " + std::strerror(errno));
  }
  return hash.Hex();
}

std::string Sha256OfBytes(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.Hex();
}

}  // namespace plural::data
