#include "dist/patience.h"

#include <cstddef>

namespace plural::dist {

std::string PeersOf(const std::vector<std::string>& host_of_rank, int rank) {
  const auto own = static_cast<std::size_t>(rank);
  std::string text;
  for (std::size_t begin = 0; begin < host_of_rank.size();) {
    if (begin == own) {
      ++begin;
      continue;
    }
    std::size_t end = begin + 1;
    while (end < host_of_rank.size() && end != own && host_of_rank[end] == host_of_rank[begin]) ++end;
    text += (text.empty() ? "rank" : ", rank") + std::string(end - begin > 1 ? "s " : " ") +
            std::to_string(begin) + (end - begin > 1 ? "-" + std::to_string(end - 1) : "") + " on " +
            host_of_rank[begin];
    begin = end;
  }
  return text.empty() ? "no other rank" : text;
}

}  // namespace plural::dist
