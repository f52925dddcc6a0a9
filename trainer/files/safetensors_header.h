// The JSON header of a safetensors file.
//
// Owns: its grammar and the size rule of a single tensor. Does not own: how tensors lie in the file
// (safetensors.h). Thread rule: pure functions.
#pragma once

#include <map>
#include <string>

#include "trainer/files/safetensors.h"

namespace plural::trainer {

// "F32" and so on. Errors: std::logic_error for a dtype that the format does not have here.
const char* SafetensorsDType(at::ScalarType dtype);

// False, and one line in `error`, when the header breaks a rule.
bool ParseSafetensorsHeader(const std::string& header,
                            std::map<std::string, SafetensorsReader::Entry>& entries,
                            std::map<std::string, std::string>& metadata, std::string& error);

}  // namespace plural::trainer
