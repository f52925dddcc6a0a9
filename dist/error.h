// Errors of the distributed library.
//
// Owns: the types. Does not own exit codes: the trainer maps them. Thread rule: values.
#pragma once

#include <stdexcept>

namespace plural::dist {

// Wrong resources: GPU count, library mismatch between ranks, a world of one rank where the
// launcher started several. Exit code 69.
class ResourceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A collective failed or a peer is gone. Exit code 76.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace plural::dist
