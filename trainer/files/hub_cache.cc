#include "trainer/files/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kModels = "models--";
constexpr std::size_t kMostShown = 5;

// "" where it is not set; "~/x" is the home folder's x, as huggingface_hub reads these variables.
std::string FolderVariable(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return "";
  std::string folder = text;
  const char* home = std::getenv("HOME");
  if (home != nullptr && (folder == "~" || folder.starts_with("~/"))) folder.replace(0, 1, home);
  return folder;
}

struct HubName {
  std::string repository;  // "ORG/NAME"
  std::string revision = "main";
  bool revision_given = false;

  std::string CacheFolder() const {
    std::string folder(kModels);
    for (const char c : repository) folder += c == '/' ? "--" : std::string(1, c);
    return folder;
  }
  std::string Download() const {
    return "hf download " + repository + (revision_given ? " --revision " + revision : "");
  }
};

// One part of a name, as huggingface_hub allows it.
bool IsNamePart(std::string_view part) {
  const auto allowed = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && !edge(part.front()) && !edge(part.back()) &&
         part.find("--") == std::string_view::npos && part.find("..") == std::string_view::npos &&
         std::all_of(part.begin(), part.end(), allowed);
}

// Whether `given` can be a name: ORG/NAME, or NAME alone, as a few old models have it.
bool ReadHubName(const std::string& given, HubName& name) {
  constexpr std::size_t kLongest = 96;
  const auto at = given.find('@');
  name.repository = given.substr(0, at);
  if (at != std::string::npos) {
    name.revision = given.substr(at + 1);
    name.revision_given = true;
  }
  // A revision may hold slashes; it must not lead out of refs/.
  for (std::size_t begin = 0; begin <= name.revision.size();) {
    const auto end = std::min(name.revision.find('/', begin), name.revision.size());
    if (!IsNamePart(std::string_view(name.revision).substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  const std::string_view repository = name.repository;
  if (repository.size() > kLongest) return false;
  const auto slash = repository.find('/');
  if (slash == std::string_view::npos) return IsNamePart(repository);
  return IsNamePart(repository.substr(0, slash)) && IsNamePart(repository.substr(slash + 1));
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::string Snapshots(const fs::path& folder) {
  std::set<std::string> commits;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder / "snapshots", error)) {
    if (IsFolder(entry.path())) commits.insert(entry.path().filename().string());
  }
  std::string shown;
  std::size_t count = 0;
  for (const std::string& commit : commits) {
    if (++count > kMostShown) return shown + ", ...";
    shown += (shown.empty() ? "" : ", ") + commit;
  }
  return shown;
}

// The folder of `revision` below a repository's folder of the cache; "" without one.
std::string SnapshotOf(const fs::path& folder, const std::string& revision) {
  std::error_code error;
  std::string commit = revision;
  if (const fs::path reference = folder / "refs" / revision; fs::is_regular_file(reference, error)) {
    commit = ReadFile(reference);
    commit.erase(commit.find_last_not_of(" \r\n") + 1);
  }
  // A commit is a plain name: what a damaged file says must not lead elsewhere.
  if (!IsNamePart(commit)) return "";
  const fs::path snapshot = folder / "snapshots" / commit;
  return IsFolder(snapshot) ? snapshot.string() : "";
}

// A download that was stopped leaves a snapshot without the files that were still to come; of a tokenizer
// alone it has none of these two. Other folders are judged by their readers.
std::string CheckedSnapshot(const std::string& folder, const std::string& where) {
  std::error_code error;
  const std::string hint = DownloadHint(folder);
  if (hint.empty() || fs::exists(fs::path(folder) / "config.json", error) ||
      fs::exists(fs::path(folder) / "adapter_config.json", error)) {
    return folder;
  }
  throw ExitError(ExitCode::kMissingInput,
                  where + ": '" + folder + "' has neither config.json nor adapter_config.json" + hint);
}

}  // namespace

fs::path HubCache() {
  for (const char* variable : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string cache = FolderVariable(variable); !cache.empty()) return cache;
  }
  if (const std::string home = FolderVariable("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  std::string caches = FolderVariable("XDG_CACHE_HOME");
  if (caches.empty()) caches = FolderVariable("HOME") + "/.cache";
  return fs::path(caches) / "huggingface" / "hub";
}

NameAndRevision SplitRevision(const std::string& given) {
  HubName name;
  if (std::error_code error; fs::exists(given, error) || !ReadHubName(given, name)) return {given, ""};
  return {name.repository, name.revision_given ? name.revision : ""};
}

std::string HubFolder(const std::string& given, const std::string& where) {
  if (IsFolder(given)) {
    // The folder of a whole repository, one level too high.
    if (!IsFolder(fs::path(given) / "snapshots")) return CheckedSnapshot(given, where);
    const std::string snapshot = SnapshotOf(given, "main");
    return snapshot.empty() ? given : CheckedSnapshot(snapshot, where);
  }
  const std::string asked = where + " '" + Printable(given) + "'";
  HubName name;
  if (std::error_code error; fs::exists(given, error) || !ReadHubName(given, name)) {
    throw ExitError(ExitCode::kMissingInput,
                    asked + ": is not a folder, nor a name of the Hugging Face Hub such as ORG/NAME");
  }
  const fs::path folder = HubCache() / name.CacheFolder();
  if (const std::string snapshot = SnapshotOf(folder, name.revision); !snapshot.empty()) {
    return CheckedSnapshot(snapshot, where);
  }
  std::string what =
      asked + ": no such folder, and no model of that name in the Hub cache '" + HubCache().string() + "'; ";
  if (const std::string others = Snapshots(folder); !others.empty()) {
    what = asked + ": '" + folder.string() + "' has no revision '" + name.revision +
           "'; add @ and one of those that it has (" + others + "), or ";
  }
  throw ExitError(ExitCode::kMissingInput, what + "download it once, before the run: " + name.Download());
}

std::string DownloadHint(const fs::path& folder) {
  const fs::path whole = folder.has_filename() ? folder : folder.parent_path();
  const fs::path repository = whole.parent_path().parent_path();
  std::string name = repository.filename().string();
  if (whole.parent_path().filename() != "snapshots" || !name.starts_with(kModels)) return "";
  name.erase(0, kModels.size());
  if (const auto dashes = name.find("--"); dashes != std::string::npos) name.replace(dashes, 2, "/");
  const std::string commit = whole.filename().string();
  const bool is_main = SnapshotOf(repository, "main") == (repository / "snapshots" / commit).string();
  return "; this copy in the Hub cache is not whole: hf download " + name +
         (is_main ? "" : " --revision " + commit);
}

}  // namespace plural::trainer
