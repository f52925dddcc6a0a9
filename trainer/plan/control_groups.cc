#include "trainer/plan/control_groups.h"

#include <fstream>
#include <string>

namespace plural::trainer {
namespace fs = std::filesystem;

std::vector<fs::path> ControlGroups(const fs::path& mount, const fs::path& own) {
  fs::path below;  // of the mount, without a leading slash
  std::ifstream file(own);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::/")) below = line.substr(4);
  }
  // Outside of what this process sees of the tree, paths lead upwards from the mount.
  if (below.string().starts_with("..")) below.clear();
  std::vector<fs::path> groups;
  for (; !below.empty(); below = below.parent_path()) groups.push_back(mount / below);
  groups.push_back(mount);
  return groups;
}

}  // namespace plural::trainer
