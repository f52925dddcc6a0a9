// One-to-many fine-tuning: the likelihood of N responses per prompt (docs/methods.md 3.3).
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

data::LabelledGroup LabelMany(const data::Group& group, int used, const data::LabelSettings& settings,
                              std::int64_t /*epoch*/) {
  return data::Positives(group, data::WithoutNumbers(used), settings.normalization);
}

}  // namespace

extern const Method otmft;
constinit const Method otmft = {.name = "otmft", .label = LabelMany};

}  // namespace plural::trainer::methods
