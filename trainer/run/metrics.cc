#include "trainer/run/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {

nlohmann::ordered_json MetricsNumber(double value) {
  if (std::isfinite(value)) return value;
  if (std::isnan(value)) return "nan";
  return value > 0 ? "inf" : "-inf";
}

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t committed_bytes)
    : path_(path), bytes_(committed_bytes) {
  // A pipe would be waited for; the run folder refuses links and pipes with more words.
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (descriptor_ < 0) {
    throw ExitError(ExitCode::kCannotCreate,
                    path.string() + ": cannot be opened for writing: " + std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0 || status.st_size < committed_bytes) {
    ::close(descriptor_);
    throw ExitError(ExitCode::kBadData, path.string() + ": " + std::to_string(status.st_size) +
                                            " bytes, but the checkpoint has seen " +
                                            std::to_string(committed_bytes) +
                                            "; restore the file that belongs to this run");
  }
  if (::ftruncate(descriptor_, committed_bytes) != 0) {
    const int reason = errno;
    ::close(descriptor_);
    throw ExitError(ExitCode::kCannotCreate,
                    path.string() + ": cannot be cut to its committed part: " + std::strerror(reason));
  }
  SyncNamesIn(path.parent_path());  // a checkpoint may be the first to be safe on disk
}

MetricsLog::~MetricsLog() { ::close(descriptor_); }

void MetricsLog::Write(const MetricsLine& line) {
  const std::string text = line.dump() + "\n";
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::pwrite(descriptor_, text.data() + done, text.size() - done,
                                     static_cast<off_t>(bytes_ + static_cast<std::int64_t>(done)));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) Fail("cannot be written");
    done += static_cast<std::size_t>(written);
  }
  bytes_ += static_cast<std::int64_t>(text.size());
}

void MetricsLog::Sync() {
  if (::fsync(descriptor_) != 0) Fail("cannot be synced");
}

void MetricsLog::Fail(const char* what) const {
  throw ExitError(ExitCode::kCheckpointWrite,
                  path_.string() + ": " + what + ": " + std::strerror(errno) +
                      "; free space or fix the disk and start again to go on from the last checkpoint");
}

}  // namespace plural::trainer
