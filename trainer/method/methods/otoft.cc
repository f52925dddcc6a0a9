// One-to-one fine-tuning: the likelihood of one response per prompt (docs/methods.md 3.2).
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

data::LabelledGroup LabelOne(const data::Group& group, int used, const data::LabelSettings& settings,
                             std::int64_t /*epoch*/) {
  return data::Positives(group, data::WithoutNumbers(used), settings.normalization);
}

constexpr KeyDefault kDefaults[] = {{"group.responses", "1"}, {"train.groups_per_step", "8"}};

}  // namespace

extern const Method otoft;
constinit const Method otoft = {
    .name = "otoft", .defaults = kDefaults, .responses = UsedResponses::kFirst, .label = LabelOne};

}  // namespace plural::trainer::methods
