#include "trainer/run/tracker.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

extern char** environ;

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

// Descriptors that would keep a pipe of mpirun or of a batch system open when this process has ended.
std::vector<int> OpenDescriptors() {
  std::vector<int> open;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd", error)) {
    const std::string name = entry.path().filename();
    int number = -1;
    std::from_chars(name.data(), name.data() + name.size(), number);
    if (number > STDERR_FILENO) open.push_back(number);
  }
  return open;
}

// Without what makes a program take itself for a rank.
std::vector<char*> EnvironmentOfOneRank() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with("OMPI_") || text.starts_with("PMIX_") || text.starts_with("PMI_")) continue;
    kept.push_back(*entry);
  }
  kept.push_back(nullptr);
  return kept;
}

// Errors: the number of one, 0 without.
int Spawn(const std::vector<std::string>& words, const fs::path& output) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  for (const int descriptor : OpenDescriptors()) posix_spawn_file_actions_addclose(&files, descriptor);

  // A session of its own: Ctrl-C and the end of a terminal are for the training.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(
      &attributes, static_cast<short>(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));

  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> environment = EnvironmentOfOneRank();
  pid_t process = 0;
  const int error =
      posix_spawnp(&process, words[0].c_str(), &files, &attributes, arguments.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

}  // namespace

fs::path TrackProgram() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path found = program.parent_path().parent_path() / "launch/plural";
  return !error && fs::exists(found, error) ? found : fs::path();
}

void StartTracker(const fs::path& program, const fs::path& run, RunLog& log) {
  std::error_code ignored;
  const fs::path folder = fs::absolute(run, ignored);
  const std::string later =
      "; training goes on without it: `plural track " + run.string() + "` sends the figures later";
  if (program.empty()) {
    log.Warn("no tracker is started: launch/plural is not beside the program's folder" + later);
    return;
  }
  int error = ::access(program.c_str(), X_OK) == 0 ? 0 : errno;
  if (error == 0) {
    error = Spawn({"nice", "-n", "19", program.string(), "track", folder.string(), "--follow"},
                  folder / "log/track.log");
  }
  if (error != 0)
    log.Warn("no tracker is started: " + program.string() + ": " + std::strerror(error) + later);
}

}  // namespace plural::trainer
