#include "trainer/commands/failure.h"

#include <c10/util/Exception.h>

#include <new>

#include "data/error.h"
#include "dist/error.h"

namespace plural::trainer {
namespace {

// Libraries append backtraces and source lines to what they say.
std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Failure DescribeFailure(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ExitError& failure) {
    return {failure.Code(), failure.what()};
  } catch (const data::DataError& failure) {
    return {ExitCode::kBadData, failure.what()};
  } catch (const data::MissingInput& failure) {
    return {ExitCode::kMissingInput, failure.what()};
  } catch (const dist::ResourceError& failure) {
    return {ExitCode::kWrongResources, failure.what()};
  } catch (const dist::PeerError& failure) {
    return {ExitCode::kPeerLost, failure.what()};
  } catch (const c10::OutOfMemoryError& failure) {
    return {ExitCode::kInternal, "out of GPU memory: " + FirstLine(failure.what_without_backtrace()) +
                                     "; set train.row_budget to 256, say, or train.activation_checkpointing "
                                     "to on; of generate, lower --batch"};
  } catch (const c10::Error& failure) {
    return {ExitCode::kInternal,
            "internal error in libtorch: " + FirstLine(failure.what_without_backtrace())};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kInternal,
            "out of memory; use fewer ranks on this machine, or set train.row_budget to 256, say (`plural "
            "dry-run` "
            "estimates the need)"};
  } catch (const std::exception& failure) {
    return {ExitCode::kInternal, "internal error: " + FirstLine(failure.what())};
  } catch (...) {
    return {ExitCode::kInternal, "internal error of an unknown kind"};
  }
}

std::string FormatFailure(const Failure& failure, int rank, const std::string& phase) {
  std::string where = " [exit " + std::to_string(static_cast<int>(failure.code));
  if (rank >= 0) where += ", rank " + std::to_string(rank);
  if (!phase.empty()) where += ", phase " + phase;
  where += "]";
  const auto end_of_line = failure.what.find('\n');
  std::string text = "plural: error: " + failure.what.substr(0, end_of_line) + where + "\n";
  if (end_of_line != std::string::npos) text += failure.what.substr(end_of_line + 1) + "\n";
  return text;
}

}  // namespace plural::trainer
