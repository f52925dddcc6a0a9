// Ordered results: items distributed over ranks, and their results gathered in order.
//
// Owns: which rank has which item, the wire format. Does not own: what a result is; it is bytes of
// the caller. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/world.h"

namespace plural::dist {

// This rank's items of 0 .. count - 1: every Size()-th from Rank() on. Not collective.
std::vector<std::int64_t> MyShare(std::int64_t count, const World& world);

// `mine` holds one result per item of MyShare, in its order. Returns the results of all items in
// the order of items, on every rank. COLLECTIVE.
std::vector<std::string> GatherInOrder(const std::vector<std::string>& mine, Collectives& collectives);

// Converts numbers to a result and back, bit for bit, between ranks of one byte order. Not
// collective. Errors: std::logic_error when the bytes are not a whole count of numbers.
std::string BytesOf(std::span<const double> numbers);
std::vector<double> NumbersIn(const std::string& bytes);

}  // namespace plural::dist
