// Errors of the data library.
//
// Owns: the two ways in which input can be unusable. Does not own exit codes: the trainer maps these
// types to them (docs/running.md). Thread rule: values, freely copied between threads.
#pragma once

#include <stdexcept>
#include <string>

namespace plural::data {

// Content that cannot be used: corrupt, foreign, inconsistent with the model. Exit code 65.
class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A file or folder that is missing or unreadable. Exit code 66.
class MissingInput : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace plural::data
