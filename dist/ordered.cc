#include "dist/ordered.h"

#include <cstring>
#include <stdexcept>

namespace plural::dist {
namespace {

// Appends the result behind its length.
void Append(const std::string& result, std::string& bytes) {
  const std::uint64_t size = result.size();
  bytes.append(reinterpret_cast<const char*>(&size), sizeof(size));
  bytes += result;
}

// The result at offset `at`, which advances past it.
std::string Take(const std::string& bytes, std::size_t& at) {
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data() + at, sizeof(size));
  at += sizeof(size);
  std::string result = bytes.substr(at, size);
  at += size;
  return result;
}

}  // namespace

std::vector<std::int64_t> MyShare(std::int64_t count, const World& world) {
  std::vector<std::int64_t> share;
  for (std::int64_t item = world.Rank(); item < count; item += world.Size()) share.push_back(item);
  return share;
}

std::vector<std::string> GatherInOrder(const std::vector<std::string>& mine, Collectives& collectives) {
  std::string bytes;
  for (const std::string& result : mine) Append(result, bytes);
  const std::vector<std::string> parts = collectives.AllGather(bytes);
  std::vector<std::size_t> at(parts.size(), 0);
  std::vector<std::string> results;
  // Rank 0 has the first item of each round; the last round may end early.
  for (std::size_t rank = 0; at[rank] < parts[rank].size(); rank = (rank + 1) % parts.size()) {
    results.push_back(Take(parts[rank], at[rank]));
  }
  return results;
}

std::string BytesOf(std::span<const double> numbers) {
  std::string bytes(numbers.size_bytes(), '\0');
  if (!numbers.empty()) std::memcpy(bytes.data(), numbers.data(), bytes.size());  // null where empty
  return bytes;
}

std::vector<double> NumbersIn(const std::string& bytes) {
  if (bytes.size() % sizeof(double) != 0) throw std::logic_error("bytes that are no whole numbers");
  std::vector<double> numbers(bytes.size() / sizeof(double));
  if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return numbers;
}

}  // namespace plural::dist
