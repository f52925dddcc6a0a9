#include "trainer/state/validation_record.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace plural::trainer {
namespace {

constexpr std::array<std::string_view, 3> kBetterLow = {"loss", "perplexity", "kl_nats"};
constexpr double kLeastShare = 0.1;

}  // namespace

bool BetterLow(std::string_view figure) { return std::ranges::find(kBetterLow, figure) != kBetterLow.end(); }

void NoteFigures(ValidationRecord& record, const std::vector<ValidationFigure>& figures, std::int64_t step) {
  for (const auto& [name, value] : figures) {
    if (!std::isfinite(value)) continue;
    const auto [best, first] = record.best.try_emplace(name, ValidationRecord::Best{value, step});
    const bool better = BetterLow(name) ? value < best->second.value : value > best->second.value;
    if (!first && better) best->second = {value, step};
  }
}

std::optional<Collapse> FindCollapse(const ValidationRecord& record,
                                     const std::vector<ValidationFigure>& figures, double factor) {
  for (const auto& [name, value] : figures) {
    const auto best = record.best.find(name);
    if (best == record.best.end()) continue;
    const bool low = BetterLow(name);
    if (!low && best->second.value < kLeastShare) continue;
    // Written so that NaN is a collapse.
    const bool fine = low ? value <= factor * best->second.value : value * factor >= best->second.value;
    if (!fine) return Collapse{name, value, best->second.value, best->second.step};
  }
  return std::nullopt;
}

}  // namespace plural::trainer
