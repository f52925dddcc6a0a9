#include "trainer/run/run_log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>

#include <iostream>

#include "trainer/base/error.h"

namespace plural::trainer {

RunLog::RunLog(const std::filesystem::path& file, bool speaks) : speaks_(speaks) {
  try {
    logger_ = std::make_unique<spdlog::logger>(
        "run", std::make_shared<spdlog::sinks::basic_file_sink_st>(file.string()));
  } catch (const spdlog::spdlog_ex& error) {
    throw ExitError(ExitCode::kCannotCreate, file.string() + ": " + error.what());
  }
  logger_->set_formatter(std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                                                                     spdlog::pattern_time_type::utc));
  logger_->flush_on(spdlog::level::info);
}

RunLog::~RunLog() = default;
RunLog::RunLog(RunLog&&) noexcept = default;

void RunLog::Info(const std::string& message) { logger_->info(message); }

void RunLog::Error(const std::string& message) { logger_->error(message); }

void RunLog::Warn(const std::string& message) {
  logger_->warn(message);
  if (speaks_) std::cerr << "plural: warning: " << message << "\n";
}

}  // namespace plural::trainer
