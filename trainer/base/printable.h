// Text from outside the program, made safe to display.
//
// Owns: escaping, so that names and values from a file stay on one line and cannot control a
// terminal. Does not own: shortening (recipe/scalar.h). Thread rule: pure.
#pragma once

#include <string>
#include <string_view>

namespace plural {

// Control characters as \n, \t or \xHH, and so bytes that are no UTF-8; everything else as it is.
std::string Printable(std::string_view text);

}  // namespace plural
