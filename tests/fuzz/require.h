// What every fuzz target uses: a folder for the files it feeds to a reader, and a check that fails the run.
//
// Owns: the folder, until the process ends. Thread rule: one thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace plural::fuzz {

// Ends the process, which the fuzzer takes for a finding and keeps the input.
inline void Require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

// A refusal is one line, and can be shown: names out of a bad file stand in it.
inline void RequireOneLine(std::string_view message) {
  for (const char byte : message) {
    const auto code = static_cast<unsigned char>(byte);
    Require(code >= 32 && code != 127, "control character in: " + std::string(message));
  }
}

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "plural-fuzz-XXXXXX").string();
    Require(mkdtemp(pattern.data()) != nullptr, "cannot make " + pattern);
    path_ = pattern;
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& Path() const { return path_; }
  void Write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace plural::fuzz
