#include "dist/stacks.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace plural::dist {
namespace {

constexpr int kFrames = 64;
constexpr std::chrono::milliseconds kAnswer{500};

// State outside of objects: a signal handler is given nothing else to write to. One thread at a time is
// asked.
std::array<void*, kFrames> frames;
std::atomic<int> frames_found = -1;
std::atomic<pid_t> asked = 0;

int AskingSignal() { return SIGRTMIN + 6; }  // the first ones are other libraries' favourites

extern "C" void WriteFrames(int) {
  const int error = errno;
  if (asked.load() == static_cast<pid_t>(syscall(SYS_gettid))) {
    frames_found.store(backtrace(frames.data(), kFrames));
  }
  errno = error;
}

std::string NameOf(void* address) {
  Dl_info info{};
  std::ostringstream text;
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) {
    text << address;
    return text.str();
  }
  if (info.dli_sname != nullptr) {
    int status = 0;
    char* plain = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    text << (status == 0 ? plain : info.dli_sname);
    std::free(plain);  // NOLINT: malloc'ed by the C++ runtime
  } else {
    text << "+0x" << std::hex
         << reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  }
  text << " in " << std::filesystem::path(info.dli_fname).filename().string();
  return text.str();
}

// "plural (S)" of a thread of this process.
std::string NameAndState(const std::filesystem::path& task) {
  std::string name, stat;
  std::getline(std::ifstream(task / "comm"), name);
  std::getline(std::ifstream(task / "stat"), stat);
  const auto behind = stat.rfind(") ");
  return name + " (" + (behind == std::string::npos ? "?" : stat.substr(behind + 2, 1)) + ")";
}

}  // namespace

void PrepareStacks() {
  std::array<void*, 2> some{};
  backtrace(some.data(), 2);  // loads the unwinder
  struct sigaction action {};
  action.sa_handler = WriteFrames;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(AskingSignal(), &action, nullptr);
}

std::string StacksOfThreads() {
  std::string text;
  std::error_code error;
  const auto self = static_cast<pid_t>(syscall(SYS_gettid));
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    const auto thread = static_cast<pid_t>(std::strtol(task.path().filename().c_str(), nullptr, 10));
    if (thread == self || thread <= 0) continue;
    text += "thread " + std::to_string(thread) + " " + NameAndState(task.path());
    frames_found.store(-1);
    asked.store(thread);
    if (syscall(SYS_tgkill, getpid(), thread, AskingSignal()) != 0) {
      text += ": has ended\n";
      continue;
    }
    const auto until = std::chrono::steady_clock::now() + kAnswer;
    while (frames_found.load() < 0 && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const int found = frames_found.load();
    asked.store(0);
    text += found < 0 ? ": does not answer\n" : "\n";
    for (int i = 2; i < found; ++i) {  // behind the handler and the kernel's frame that called it
      text += "  " + NameOf(frames[static_cast<std::size_t>(i)]) + "\n";
    }
  }
  return text;
}

}  // namespace plural::dist
